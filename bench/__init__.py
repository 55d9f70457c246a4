"""Benchmarks of speed and memory beside peers in the same run; `python -m bench` prints tables."""
