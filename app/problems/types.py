"""Problem types of the API; their texts are the data of `types.toml`."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tabular.slugs import SLUGS, Slug

_TEXTS = Path(__file__).with_name("types.toml")


@dataclass(frozen=True)
class ProblemType:
    """Kind of problem; its page is ``/problems/<slug>``.

    Attributes:
        slug: Last part of the problem's `type`; it never changes.
        status: Usual HTTP status.
        title: Short summary that never changes from one occurrence to the next.
        explanation: Text that says what happened and what a caller can do about it.
        retry_after_s: Seconds after which another try makes sense, for problems that pass.
    """

    slug: Slug
    status: int
    title: str
    explanation: str
    retry_after_s: int | None = None

    @property
    def uri(self) -> str:
        """Return the problem's `type`."""
        return f"/problems/{self.slug}"


def _read_types() -> dict[str, ProblemType]:
    texts: dict[str, dict[str, Any]] = tomllib.loads(_TEXTS.read_text(encoding="utf-8"))
    return {slug: ProblemType(slug, **texts[slug]) for slug in SLUGS}


PROBLEM_TYPES = _read_types()
"""Problem types by slug."""
