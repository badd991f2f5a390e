"""Networks, cut into encoder and predictor, flattened, with the channel groups of their layers."""
