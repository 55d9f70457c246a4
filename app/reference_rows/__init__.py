"""Rows that stand for a version, and what is usual among them."""
