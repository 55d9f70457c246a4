"""Opaque ids: a prefix that tells the kind, and 128 random bits."""

import re
import secrets
from typing import Literal

IdKind = Literal["ds", "job", "key", "wh", "msg"]

NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,63}$"
"""What names of models, aliases and projects look like."""

_NAME = re.compile(NAME_PATTERN.removesuffix("$"))
_ID = re.compile(r"(ds|job|key|wh|msg)_[0-9a-f]{32}")


def new_id(kind: IdKind) -> str:
    """Return a fresh id, such as ``job_`` and 32 hexadecimal digits."""
    return f"{kind}_{secrets.token_hex(16)}"


def is_name(text: str) -> bool:
    """Return whether a text can be the name of a model, an alias or a project."""
    return _NAME.fullmatch(text) is not None


def is_id(text: str, kind: IdKind) -> bool:
    """Return whether a text can be an id of this kind.

    Anything else (a NUL byte, a path, a megabyte) is turned away before it reaches the database.
    """
    return _ID.fullmatch(text) is not None and text.startswith(f"{kind}_")
