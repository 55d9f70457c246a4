"""Warm-up of a process: what the first request would wait for is done before it is ready."""

import asyncio
import gc
import logging
import time
from collections.abc import Sequence

from app.engine.loaded_models import LoadedModels
from flows.engine.serving.packing import load_maps
from models_store.errors import DatabaseError, StoreError

log = logging.getLogger(__name__)

DEFAULT_PROJECT = "default"
_RETRY_S = 1.0

Preloaded = tuple[str, str]


def preloaded(text: str | None) -> list[Preloaded]:
    """Return the project and the reference of each model that a setting names."""
    refs = [ref.strip() for ref in text.split(",")] if text else []
    parts = [ref.rpartition("/") for ref in refs]
    return [(project or DEFAULT_PROJECT, ref) for project, _, ref in parts]


_COMPILING = (
    "The kernels are being loaded, or compiled, once on this machine, which takes a minute or two."
)


class WarmUp:
    """Compilation of the kernels, and loads of models, at the start of a process.

    Args:
        refs: Projects and references of the models to load.

    Attributes:
        waits_for: Work that is not done yet; None once all is.
    """

    def __init__(self, models: LoadedModels, refs: Sequence[Preloaded]) -> None:
        self._models = models
        self._refs = refs
        self._kernels = self._freezes = False
        self.waits_for: str | None = "Models are being loaded." if refs else None

    def prepare_server(self, *, compiled: bool) -> None:
        """Have the kernels compiled unless they are, and modules left out of collections: before `run`.

        Kernels that are compiled are loaded with the first model: they take 120 MB and half a second.
        """
        self._freezes = True
        if not compiled:
            self._kernels = True
            self.waits_for = _COMPILING

    async def run(self) -> None:
        """Do all of it; a model that cannot be loaded is logged and left out."""
        began = time.monotonic()
        if self._kernels:
            try:
                await asyncio.to_thread(compile_kernels)
            except Exception:
                # The first request then compiles what it needs, or tells what is wrong.
                log.exception("the kernels could not be compiled")
        for project, ref in self._refs:
            self.waits_for = f"The model {ref} is being loaded."
            await self._load(project, ref)
        if self._freezes:
            # What is there now stays: a full collection would visit all modules while every request waits.
            gc.collect()
            gc.freeze()
        self.waits_for = None
        log.info("warm after %.2f s", time.monotonic() - began)

    async def _load(self, project: str, ref: str) -> None:
        """Load a model; wait for a database that is unavailable."""
        while True:
            try:
                version = await self._models.resolve(project, ref)
                held = self._models.hold(version)
                try:
                    await held.flow()
                finally:
                    self._models.release(held)
            except DatabaseError as error:
                log.warning("waiting for the database to load %s: %s", ref, error)
                await asyncio.sleep(_RETRY_S)
            except StoreError as error:
                log.error("%s of project %s is not loaded: %s", ref, project, error)  # noqa: TRY400
                return
            except Exception:
                log.exception("%s of project %s is not loaded", ref, project)
                return
            else:
                return


def compile_kernels() -> None:
    """Compile the kernels, or load them from a cache, with the maps of the layers of most flows."""
    load_maps(["affine", "scaled"])
