"""Algorithms: one file each, holding only what differs."""
