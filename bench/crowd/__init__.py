"""Measurement of what a crowd of connections of one tenant leaves to another."""
