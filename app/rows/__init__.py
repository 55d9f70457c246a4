"""Rows in requests and responses: codecs by media type."""
