"""Background work: a queue of messages, a supervisor, and a trainer process for each job."""
