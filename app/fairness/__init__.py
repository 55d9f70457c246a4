"""Fair shares of threads and of open requests among projects."""
