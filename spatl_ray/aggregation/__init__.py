"""Combining the updates of a cohort: exact sums and the rules built on them."""
