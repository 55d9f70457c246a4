"""Flows compiled for serving: packed weights and kernels."""
