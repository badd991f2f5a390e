"""Searches and sweeps: Ray Tune over an experiment's fields, and factorial grids of runs."""
