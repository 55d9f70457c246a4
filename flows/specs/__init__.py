"""Specifications of flows: their numbers, limits and costs, known without PyTorch."""
