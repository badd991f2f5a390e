"""Who can take part in a round, who is drawn, and what their devices can do."""
