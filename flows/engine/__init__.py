"""Compiled loops: one description of a flow, one registry of maps, an engine each to serve and to train."""
