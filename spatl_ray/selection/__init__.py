"""Which parameters are salient: what travels, and what is kept for inference."""
