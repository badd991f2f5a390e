"""Results to tables and pictures. Reads Parquet only: no torch, no ray, nothing of spatl_ray."""
