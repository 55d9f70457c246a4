"""Recipes of all experiments."""
