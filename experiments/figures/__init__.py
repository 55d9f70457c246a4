"""Figures of the published experiments."""
