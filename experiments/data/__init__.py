"""Data of the published experiments."""
