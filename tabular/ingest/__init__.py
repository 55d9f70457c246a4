"""Ingestion of an uploaded file: parsing, screening, statistics, warnings."""
