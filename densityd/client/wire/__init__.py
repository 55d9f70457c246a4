"""Formats on the wire."""
