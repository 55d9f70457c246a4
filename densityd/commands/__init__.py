"""Commands that talk to a running service; each loads the client only when it runs."""
