"""The server process: startup, job queue, limits and readiness."""
