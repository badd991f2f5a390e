"""Results as Parquet tables: what the columns are, and how they reach the disk whole."""
