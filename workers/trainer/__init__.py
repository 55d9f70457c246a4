"""The trainer: a process that does the work of one job."""
