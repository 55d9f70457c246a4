"""Versions that leave the service as files, and records that come back with them."""
