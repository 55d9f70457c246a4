"""Figure of the study of amortised inference."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments import canvas

TITLES = {
    "diagonal": "diagonal Gaussian",
    "iaf-2": "flow, 2 layers",
    "iaf-4": "flow, 4 layers",
}
"""Names of the posteriors for people."""

_COLOURS = {"diagonal": "#d55e00", "iaf-2": "#56b4e9", "iaf-4": "#0072b2"}
_STEEP = 9  # first reports, whose rise would hide all others


def draw(runs: Sequence[dict[str, Any]], path: Path) -> Path:
    """Draw the ELBO while training, and both bounds of test rows for each posterior.

    Args:
        runs: Runs of the study so far.
        path: Path of the PNG file.
    """

    def plot(figure: Any) -> None:  # noqa: ANN401  matplotlib's
        left, right = figure.subplots(1, 2, width_ratios=(3, 2))
        for place, (name, title) in enumerate(TITLES.items()):
            of_name = [run for run in runs if run["posterior"] == name]
            for number, run in enumerate(of_name):
                label = title if number == 0 else None
                left.plot(
                    *zip(*run["curve"][_STEEP:], strict=True), color=_COLOURS[name], label=label
                )
            for measure, marker, label in (
                ("test_elbo", "o", "ELBO"),
                ("test_bound", "^", "importance-weighted bound"),
            ):
                values = [run[measure] for run in of_name]
                right.plot(
                    [place] * len(values),
                    values,
                    marker,
                    color=_COLOURS[name],
                    fillstyle="none" if marker == "o" else "full",
                    label=label if place == 0 else None,
                )
                if values:
                    mean = statistics.mean(values)
                    right.annotate(
                        f"{mean:.1f}",
                        (place, mean),
                        (8, 0),
                        textcoords="offset points",
                        va="center",
                    )
        left.set(xlabel="iteration", ylabel="ELBO of training rows, nats")
        left.set_title("Training; a line for each seed")
        left.legend()
        right.set_xticks(
            range(len(TITLES)), [title.replace(" ", "\n", 1) for title in TITLES.values()]
        )
        right.set(xlim=(-0.4, len(TITLES) - 0.3), ylabel="nats of a test row")
        right.set_title("Lower bounds of log p(x)")
        right.legend(loc="center")

    return canvas.save(path, plot, (10, 4))
