"""Errors of the worker."""


class WorkerError(Exception):
    """Base of every error of this package.

    Attributes:
        code: Stable code of the reason, for programs.
        detail: Sentence for people.
    """

    def __init__(self, code: str, detail: str) -> None:
        self.code = code
        self.detail = detail
        super().__init__(detail)


class TrainingError(WorkerError):
    """Job that cannot succeed, for a reason that its caller should read."""


class UnfitError(WorkerError):
    """Worker that lacks what any job needs."""
