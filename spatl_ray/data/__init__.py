"""Data sets, their partitions over clients, and each client's own splits."""
