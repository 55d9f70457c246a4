"""What the worker raises."""


class WorkerError(Exception):
    """Base of every error of this package."""


class TrainingError(WorkerError):
    """A job that cannot succeed, for a reason its caller should read.

    Args:
        code: stable, for programs.
        detail: one sentence.
    """

    def __init__(self, code: str, detail: str) -> None:
        self.code = code
        self.detail = detail
        super().__init__(detail)


class UnfitError(WorkerError):
    """A fault of the worker, which lacks what any job needs.

    Args:
        code: stable, for programs.
        detail: one sentence.
    """

    def __init__(self, code: str, detail: str) -> None:
        self.code = code
        self.detail = detail
        super().__init__(detail)
