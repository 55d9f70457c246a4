"""Responses of the service as objects."""
