"""Supervisor of trainers: claims jobs and starts, watches and ends their trainers."""
