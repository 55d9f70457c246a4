"""Rows of request bodies, decoded: a module for each way that a format is read."""
