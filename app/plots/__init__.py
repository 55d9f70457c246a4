"""Plots: their numbers and their drawing."""
