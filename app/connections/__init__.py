"""HTTP/1.1 connections: their protocol, bounds and groups."""
