"""Notations of numbers in text: units and other texts around them."""
