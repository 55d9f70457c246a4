"""Plans of parents: which children do the work of a job, and what becomes of it. Pure functions."""
