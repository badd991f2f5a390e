"""Client states between rounds, on disk beside the workers."""
