"""Watching of scores: what is counted of the rows that versions score, and whether they have drifted."""
