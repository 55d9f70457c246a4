"""The whole service in one process and one thread, in simulated time, from one seed."""
