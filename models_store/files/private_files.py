"""Files that only the account of the service may read."""

import os
from pathlib import Path

_OTHERS = 0o077
_OWN = ("blobs", "logs", "redis")


def create_private_files() -> None:
    """Have this process and its children create files that other accounts cannot read."""
    os.umask(_OTHERS)


def close_to_others(data_dir: Path) -> str | None:
    """Close what the service owns in its data directory to other accounts.

    The folder itself may be somebody's own, such as a home directory, so it is not changed.

    Args:
        data_dir: Data directory; it need not exist.

    Returns:
        A warning, if other accounts may enter or read the folder itself.

    Raises:
        OSError: The files belong to another account.
    """
    for path in (*data_dir.glob("densityd.sqlite3*"), *(data_dir / name for name in _OWN)):
        if path.exists() and path.stat().st_mode & _OTHERS:
            path.chmod(path.stat().st_mode & ~_OTHERS)
    if data_dir.exists() and (mode := data_dir.stat().st_mode & _OTHERS):
        return (
            f"Other accounts of this machine may enter the data directory {data_dir}"
            f" (mode {0o700 | mode:o}); close it with: chmod 700 {data_dir}"
        )
    return None
