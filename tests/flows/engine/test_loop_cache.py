"""The cache of compiled loops."""

import importlib
import sys

import pytest

from flows.engine import loop_cache

ENTRY = """
from numba import njit
from helper_of_a_loop import step

@njit(cache=True)
def loop(x):
    return step(x)
"""
HELPER = """
from numba import njit

@njit
def step(x):
    return x + {}
"""


def loaded(name):
    sys.modules.pop(name, None)
    importlib.invalidate_caches()
    return importlib.import_module(name)


def computed(folder, added):
    """Return the loop of new modules, as another process would load it, and what it computes."""
    loop_cache.sources_stamp.cache_clear()
    (folder / "helper_of_a_loop.py").write_text(HELPER.format(added))
    sys.modules.pop("helper_of_a_loop", None)
    loop = loaded("entry_of_a_loop").loop
    return loop(1), loop.stats.cache_hits


@pytest.fixture
def folder(tmp_path, monkeypatch):
    loop_cache.install()
    monkeypatch.setattr(loop_cache, "FOLDERS", (tmp_path,))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "entry_of_a_loop.py").write_text(ENTRY)
    yield tmp_path
    loop_cache.sources_stamp.cache_clear()
    for name in ("helper_of_a_loop", "entry_of_a_loop"):
        sys.modules.pop(name, None)


def test_a_loop_is_read_from_the_cache_until_a_file_of_any_loop_changes(folder):
    assert computed(folder, 10) == (11, {})
    number, hits = computed(folder, 10)
    assert (number, sum(hits.values())) == (11, 1)
    assert computed(folder, 20)[0] == 21


@pytest.mark.parametrize(
    "name",
    [
        "engine.blocks",
        "engine.serving.networks",
        "engine.serving.kernels",
        "engine.training.kernels",
    ],
)
def test_all_loops_are_kept_so(name):
    module = importlib.import_module(f"flows.{name}")
    caches = [getattr(value, "_cache", None) for value in vars(module).values()]
    impls = [cache._impl for cache in caches if cache is not None and hasattr(cache, "_impl")]
    assert all(type(impl.locator).__module__ == loop_cache.__name__ for impl in impls)
    assert impls
