"""The compiler of loops, and the places where numba keeps them, stamped with the sources of all.

numba itself stamps a compiled function with the file that it is in, but a loop also holds what it
calls of other files.
"""

import fcntl
import hashlib
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from numba import config, extending, njit
from numba.core import caching

# mypy: ignore-errors
# numba has no types.

_ENGINE = Path(__file__).parent
FOLDERS = (_ENGINE, *(_ENGINE / name for name in ("maps", "serving", "training")))


@cache
def sources_stamp(folders: tuple[Path, ...]) -> str:
    """Return a hash of all source files of compiled loops."""
    files = sorted(file for folder in folders for file in folder.glob("*.py"))
    digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


class _StampedWithSources:
    """Place that holds loops of this package alone, as long as no source of a loop changes."""

    @classmethod
    def from_function(
        cls, py_func: Callable[..., Any], py_file: str
    ) -> caching._CacheLocator | None:
        ours = Path(py_file).parent in FOLDERS
        return super().from_function(py_func, py_file) if ours else None

    def get_source_stamp(self) -> str:
        return sources_stamp(FOLDERS)


class GivenFolder(_StampedWithSources, caching.UserProvidedCacheLocator):
    """The folder of NUMBA_CACHE_DIR."""


class SourceFolder(_StampedWithSources, caching.InTreeCacheLocator):
    """`__pycache__` beside the source."""


class UserFolder(_StampedWithSources, caching.UserWideCacheLocator):
    """The user's folder of caches."""


@cache
def install() -> None:
    """Let numba look for loops of this package in these places, for others where it did."""
    ours = [f"{__name__}.{place.__name__}" for place in (GivenFolder, SourceFolder, UserFolder)]
    usual = [place.__name__ for place in caching.CacheImpl._locator_classes]
    others = config.CACHE_LOCATOR_CLASSES or ",".join(usual)
    config.CACHE_LOCATOR_CLASSES = ",".join([*ours, others])


install()


@contextmanager
def one_process(part: str) -> Iterator[None]:
    """Have one process at a time compile a part of the engine; the next ones load what it has kept.

    Args:
        part: Name of a subfolder of the engine.
    """
    with (_ENGINE / part / "__init__.py").open() as source:
        with suppress(OSError):  # a file system without locks: some may compile the same
            fcntl.flock(source, fcntl.LOCK_EX)
        yield


def jit(*signature: Any) -> Callable[..., Any]:
    """Compile a function, and keep the result in numba's cache."""
    options = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}

    def decorate(function: Callable[..., Any]) -> Any:
        plain = inspect.unwrap(function)  # without checks of types, which a run of the tests adds
        try:
            return njit(*signature, cache=True, **options)(plain)
        except RuntimeError:  # no folder to cache in: compile in every process
            return njit(*signature, **options)(plain)

    return decorate


def intrinsic(function: Callable[..., Any]) -> Any:
    """Define a function of compiled loops by the LLVM code that it emits."""
    return extending.intrinsic(inspect.unwrap(function))
