"""Local training (the one loop) and evaluation."""
