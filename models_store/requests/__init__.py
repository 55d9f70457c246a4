"""Requests for jobs: their schemas, and their acceptance."""
