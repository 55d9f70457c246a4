"""Scores and samples over HTTP."""
