"""Studies: many small trainings whose results form one table."""

import json
import platform
from abc import ABC, abstractmethod
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

# Progress callback: cells done, most cells to do, and a line of numbers.
Progress = Callable[[float, float, str], None]

Cell = dict[str, Any]


class Study(ABC):
    """List of cells, each measured on its own.

    Attributes:
        name: Name of the study.
        title: Title for people.
        data: Name of its data set.
        cells: Keys of the measurements, in the order in which they are made.
    """

    name: str
    title: str
    data: str
    cells: tuple[Cell, ...]

    @abstractmethod
    def measure(self, cell: Cell, folder: Path, *, quick: bool) -> dict[str, Any]:
        """Return the numbers of one cell.

        Args:
            cell: Key of the measurement, one of `cells`.
            folder: Folder of the data sets.
            quick: True for a few rows and steps, as a smoke test.

        Raises:
            DataMissingError: The data set is not there.
        """


def run_study(
    study: Study, *, data: Path, results: Path, quick: bool, progress: Progress
) -> dict[str, Any]:
    """Measure the cells that the study's result lacks; it is written after each of them.

    Args:
        study: Study to run.
        data: Folder of the data sets.
        results: Folder of `NAME.json`.
        quick: True for a few rows and steps of each cell with seed 0; nothing is written.
        progress: Callback after each cell.

    Returns:
        The result: the study's name and its `runs`, each a cell with its numbers.

    Raises:
        DataMissingError: The data set is not there.
    """
    path = results / f"{study.name}.json"
    runs = (
        [] if quick or not path.is_file() else json.loads(path.read_text(encoding="utf-8"))["runs"]
    )
    cells = [cell for cell in study.cells if not quick or cell["seed"] == 0]
    result = {"name": study.name, "title": study.title, "runs": runs}
    result["versions"] = {name: version(name) for name in ("densityd", "torch", "numpy")}
    result["machine"] = f"{platform.machine()}, one thread"
    for count, cell in enumerate(cells, 1):
        if any(cell.items() <= run.items() for run in runs):
            continue
        runs.append(cell | study.measure(cell, data, quick=quick))
        progress(count, len(cells), f"{study.name}: {_line(runs[-1])}")
        if not quick:
            results.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial")
            partial.write_text(_text(result), encoding="utf-8")
            partial.replace(path)
    return result


def _text(result: dict[str, Any]) -> str:
    """Return JSON with a line for each run."""
    rest = {key: value for key, value in result.items() if key != "runs"}
    lines = ",\n  ".join(json.dumps(run) for run in result["runs"])
    return json.dumps(rest, indent=1)[:-2] + f',\n "runs": [\n  {lines}\n ]\n}}\n'


def _line(run: dict[str, Any]) -> str:
    return ", ".join(
        f"{key} {value:.2f}" if isinstance(value, float) else f"{key} {value}"
        for key, value in run.items()
        if not isinstance(value, list)
    )
