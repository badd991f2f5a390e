"""What runs a round: workers, aggregator, backends, and the loop over rounds."""
