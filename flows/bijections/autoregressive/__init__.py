"""Masked autoregressive layers: their networks, and sampling from them feature by feature."""
