"""The command line, and the supervision of a whole service on one machine."""
