"""Notations of cells in text: units around numbers, and words for missing values and truths."""
