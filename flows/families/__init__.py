"""Families of flows: one module each, with its spec and its layers."""
