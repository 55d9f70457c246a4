"""What a check of an installation found."""

from dataclasses import dataclass, field
from typing import Literal

Verdict = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        verdict: a note needs nobody to act; a problem makes the installation unsound.
        items: what the detail speaks of, one a line.
    """

    check: str
    verdict: Verdict
    detail: str
    items: list[str] = field(default_factory=list)
