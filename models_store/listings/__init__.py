"""Listings of resources: pages with cursors, and filters."""
