"""Errors of the start of a service, for the person at the terminal."""


class StartError(Exception):
    """The service cannot start; the message is one line."""


class InterruptedStartError(Exception):
    """A signal asked for the end before the service was ready."""
