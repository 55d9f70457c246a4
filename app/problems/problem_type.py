"""What the service says about one kind of problem."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ProblemType:
    """One kind of problem; its page is ``/problems/<slug>``.

    Args:
        slug: the stable last part of the problem's type.
        status: the usual HTTP status.
        title: a short summary that never changes from one occurrence to the next.
        explanation: what happened and what a caller can do about it.
        retry_after_s: for passing problems, when another try makes sense.
    """

    slug: str
    status: int
    title: str
    explanation: str
    retry_after_s: int | None = None

    @property
    def uri(self) -> str:
        """The problem's `type`."""
        return f"/problems/{self.slug}"
