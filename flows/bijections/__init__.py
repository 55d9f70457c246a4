"""Invertible layers and the networks inside them."""
