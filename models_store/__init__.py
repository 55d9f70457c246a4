"""Rows and bytes: datasets, jobs, models and their files."""
