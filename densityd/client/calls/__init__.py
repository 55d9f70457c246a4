"""Calls of the API: their requests and how their responses are read."""
