"""Background work: a queue of hints, a supervisor, and a trainer process for each job."""
