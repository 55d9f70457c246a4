"""A disk below one folder that fails at a chosen call, and forgets what was not synced.

The calls are those that Python makes: to create, sync, rename and delete files and folders. The
files themselves are real. What a power cut would leave is known at every moment: a file keeps what
it held when it was last synced, a folder the names that it had when it was last synced.
"""

import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

_RENAMED = ("rename", "replace")
_NAMED = ("mkdir", "unlink", "rmdir", "remove")


@dataclass(frozen=True)
class Failure:
    """What one call does instead of its work.

    Attributes:
        at: number of the call, from 1.
        code: the `errno` of its error; None: it loses half of the file that it is to sync, and
            reports success.
    """

    at: int
    code: int | None


@dataclass
class LyingDisk:
    """The disk.

    Args:
        root: folder that lies on it; it must exist.
        failure: what goes wrong, once.
        at_call: called before each call, as many times as there are calls.
    """

    root: Path
    failure: Failure | None = None
    at_call: Callable[[], None] = lambda: None
    calls: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.root = self.root.resolve()
        self._lock = threading.RLock()
        self._contents: dict[int, bytes] = {}
        self._names: dict[int, dict[str, int]] = {}
        self._held: list[int] = []  # open, so that no file's number is given to another
        self._folders: dict[int, bool] = {}
        self._know(self.root)

    @contextmanager
    def mounted(self) -> Iterator["LyingDisk"]:
        """Stand between this process and the folder."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fsync", self._fsync)
            for name in _RENAMED:
                patch.setattr(os, name, self._renaming(getattr(os, name)))
            for name in _NAMED:
                patch.setattr(os, name, self._naming(name, getattr(os, name)))
            yield self
        for handle in self._held:
            os.close(handle)
        self._held.clear()

    def trust_what_is_there(self) -> None:
        """Take what lies in the folder now for synced."""
        for path in (self.root, *self.root.rglob("*")):
            self._know(path)
            if path.is_dir():
                self._names[path.stat().st_ino] = self._listed(path)
            else:
                self._contents[path.stat().st_ino] = path.read_bytes()

    def after_power_cut(self, target: Path, *, names_first: bool) -> Path:
        """Write what would be left if the power failed now, and return its folder.

        Args:
            target: folder to be made.
            names_first: the disk has written the names of all files, but not their contents; else
                it has written nothing that was not synced.
        """
        with self._lock:
            self._restore(self.root.stat().st_ino, self.root, target, names_first=names_first)
        return target

    def _restore(self, number: int, path: Path, target: Path, *, names_first: bool) -> None:
        target.mkdir()
        names = self._listed(path) if names_first else self._names.get(number, {})
        for name, child in names.items():
            if self._folders[child]:
                self._restore(child, path / name, target / name, names_first=names_first)
            else:
                (target / name).write_bytes(self._contents.get(child, b""))

    def _fsync(self, handle: int) -> None:
        path = Path(f"/proc/self/fd/{handle}").readlink()
        if not self._is_below(path):
            return
        with self._lock:
            if self._call("fsync", path):
                os.truncate(path, path.stat().st_size // 2)
            self._know(path)
            if path.is_dir():
                self._names[path.stat().st_ino] = self._listed(path)
            else:
                self._contents[path.stat().st_ino] = path.read_bytes()

    def _renaming(self, call: Callable[..., None]) -> Callable[..., None]:
        def rename(source: Any, target: Any, **options: Any) -> None:
            with self._lock:
                if self._is_below(Path(target)):
                    self._call("rename", Path(target))
                    self._know(Path(source))
                call(source, target, **options)

        return rename

    def _naming(self, name: str, call: Callable[..., None]) -> Callable[..., None]:
        def changed(path: Any, *args: Any, **options: Any) -> None:
            folder = options.get("dir_fd")
            base = Path(f"/proc/self/fd/{folder}").readlink() if folder is not None else Path()
            with self._lock:
                if self._is_below(base / path):
                    self._call(name, base / path)
                call(path, *args, **options)
                if name == "mkdir" and self._is_below(base / path):
                    self._know(base / path)

        return changed

    def _call(self, name: str, path: Path) -> bool:
        """Count a call; raise its error, or tell that it is to lose data."""
        self.at_call()
        self.calls.append(f"{name} {path.relative_to(self.root)}")
        failure = self.failure
        if failure is None or len(self.calls) != failure.at:
            return False
        if failure.code is not None:
            raise OSError(failure.code, os.strerror(failure.code), str(path))
        return name == "fsync" and path.is_file()

    def _know(self, path: Path) -> None:
        handle = os.open(path, os.O_RDONLY)
        status = os.fstat(handle)
        if status.st_ino in self._folders:
            os.close(handle)
            return
        self._held.append(handle)
        self._folders[status.st_ino] = stat.S_ISDIR(status.st_mode)

    def _listed(self, folder: Path) -> dict[str, int]:
        for path in folder.iterdir():
            self._know(path)
        return {path.name: path.stat().st_ino for path in folder.iterdir()}

    def _is_below(self, path: Path) -> bool:
        return path.is_relative_to(self.root)
