"""The scoring engine: one thread that computes for all requests."""
