"""Elementwise maps of training steps with their gradients, by kind."""
