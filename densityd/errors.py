"""What keeps a service from starting, in words for the person at the terminal."""


class StartError(Exception):
    """The service cannot start; the message is one clear line."""


class InterruptedStartError(Exception):
    """A signal asked for the end before everything was up."""
