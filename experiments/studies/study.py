"""Studies: many small trainings whose numbers stand together in one table."""

import json
import platform
from abc import ABC, abstractmethod
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

# What is done so far and what there is to do at most, and one line of numbers.
Progress = Callable[[float, float, str], None]

Cell = dict[str, Any]


class Study(ABC):
    """A list of cells, each measured on its own.

    Attributes:
        name: of the study.
        title: for people.
        data: the name of its data set.
        cells: what tells one measurement from another, in the order in which they are made.
    """

    name: str
    title: str
    data: str
    cells: tuple[Cell, ...]

    @abstractmethod
    def measure(self, cell: Cell, folder: Path, *, quick: bool) -> dict[str, Any]:
        """The numbers of one cell.

        Args:
            cell: one of `cells`.
            folder: of the data sets.
            quick: a few rows and steps, to see that everything works.

        Raises:
            DataMissingError: the data set is not there.
        """


def run_study(
    study: Study, *, data: Path, results: Path, quick: bool, progress: Progress
) -> dict[str, Any]:
    """Measures the cells that the study's result lacks; it is written after each of them.

    Args:
        study: which one.
        data: the folder of the data sets.
        results: the folder of `NAME.json`.
        quick: of each cell with seed 0 a few rows and steps; nothing is written.
        progress: called after each cell.

    Returns:
        The result: the study's name and its `runs`, each a cell with its numbers.

    Raises:
        DataMissingError: the data set is not there.
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
    """JSON with a line for each run."""
    rest = {key: value for key, value in result.items() if key != "runs"}
    lines = ",\n  ".join(json.dumps(run) for run in result["runs"])
    return json.dumps(rest, indent=1)[:-2] + f',\n "runs": [\n  {lines}\n ]\n}}\n'


def _line(run: dict[str, Any]) -> str:
    return ", ".join(
        f"{key} {value:.2f}" if isinstance(value, float) else f"{key} {value}"
        for key, value in run.items()
    )
