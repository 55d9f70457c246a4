"""Copies of an installation: rows together with the files that they name."""
