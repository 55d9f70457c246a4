"""Requests as they are received: turns, heads, what surrounds bodies, and their chunks."""
