"""Logs and child processes of every process of the service."""
