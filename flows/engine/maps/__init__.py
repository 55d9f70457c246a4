"""Elementwise maps, a file each: inverse, forward and gradient."""
