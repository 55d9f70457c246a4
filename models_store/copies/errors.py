"""Errors of copies."""

from models_store.errors import StoreError


class CopyError(StoreError):
    """Copy that cannot be made, or is not what it should be; the message is one clause."""


class TargetNotEmptyError(CopyError):
    """Target of a copy that already holds something."""

    def __init__(self, found: str) -> None:
        super().__init__(f"the target is not empty: {found}")
