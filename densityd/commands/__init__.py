"""The commands that use a running service, over the client."""
