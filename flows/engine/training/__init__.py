"""Training steps by compiled loops."""
