"""Networks as graphs: which channels belong together, what they cost, and smaller copies."""
