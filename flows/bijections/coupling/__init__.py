"""Coupling layers: one half of the features conditions the other."""
