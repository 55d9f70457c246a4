"""Speed and memory, measured against peers in the same run; `python -m bench` prints the tables."""
