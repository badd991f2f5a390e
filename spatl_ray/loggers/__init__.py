"""Callbacks that pass a run on to other tools, by the names in results.loggers."""
