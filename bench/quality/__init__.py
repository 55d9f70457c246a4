"""Tables of numbers, categories and gaps: samples and densities with the defaults, beside SDV.

A folder holds CSV files as R writes them. Per seed, at most 5,000 rows and at most a third are held
out; a method is fitted to the others with its defaults, on one core, and gives 10,000 samples.
densityd gets the bytes of the file over HTTP without one option. Each result is a JSON file of its
own, which a later run keeps, so that a stopped run continues.
"""

import argparse
import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bench.quality.judge import (
    SAMPLES,
    Split,
    categories,
    detection_auroc,
    load,
    share_valid,
    total_variations,
)
from bench.quality.peers import SYNTHESIZERS, fit_and_sample
from bench.quality.service import train_and_measure

OURS = "densityd"
METHODS = (OURS, *SYNTHESIZERS)
Result = dict[str, Any]


def measure(arguments: Sequence[str]) -> str:
    """Measure what has no result yet, and return a table of all results."""
    options = _parser().parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    results = []
    for name in options.tables or sorted(path.stem for path in options.data.glob("*.csv")):
        for seed in range(options.seeds):
            for method in options.methods:
                path = options.output / f"{name}-{method}-{seed}.json"
                if not path.exists():
                    result = _measure_one(load(options.data / f"{name}.csv", seed), method, seed)
                    result |= {"table": name, "method": method, "seed": seed}
                    path.write_text(json.dumps(result, indent=1))
                    print(f"{path}: AUROC {result['auroc']:.3f}", flush=True)
                results.append(json.loads(path.read_text()))
    return _format(results)


def _measure_one(split: Split, method: str, seed: int) -> Result:
    if method == OURS:
        made = vars(train_and_measure(split.train, split.held_out, SAMPLES, seed))
    else:
        made = vars(fit_and_sample(method, split.train, SAMPLES, seed))
    samples = made.pop("samples")
    return {**_judge(samples, split, seed), **made}


def _judge(samples: pd.DataFrame, split: Split, seed: int) -> Result:
    names = categories(split.all)
    shuffled = split.all.sample(frac=1, random_state=seed)
    half = len(shuffled) // 2
    return {
        "valid": share_valid(samples, split.all),
        "variations": dict(zip(names, total_variations(samples, split.all, names), strict=True)),
        "halves": dict(
            zip(names, total_variations(shuffled[:half], shuffled[half:], names), strict=True)
        ),
        "auroc": detection_auroc(samples, split.held_out, seed),
    }


def _format(results: Sequence[Result]) -> str:
    lines = [
        (
            "| table | method | valid samples | total variation: mean, worst | of two halves |"
            " AUROC of a classifier | held-out log-likelihood | fit, s | rows/s: all, complete |"
        ),
        "|" + " --- |" * 9,
    ]
    for table in dict.fromkeys(result["table"] for result in results):
        for method in dict.fromkeys(result["method"] for result in results):
            found = [r for r in results if (r["table"], r["method"]) == (table, method)]
            if found:
                lines.append(_format_row(table, method, found))
    return "\n".join(lines) + "\n"


def _format_row(table: str, method: str, found: Sequence[Result]) -> str:
    def mean(values: Iterable[float]) -> float:
        return statistics.mean(values)

    variations = [list(result["variations"].values()) for result in found]
    halves = [list(result["halves"].values()) for result in found]
    cells = [
        table,
        method,
        f"{100 * mean(result['valid'] for result in found):.1f} %",
        f"{mean(map(mean, variations)):.4f}, {max(map(max, variations)):.4f}",
        f"{mean(map(mean, halves)):.4f}, {max(map(max, halves)):.4f}",
        f"{mean(result['auroc'] for result in found):.3f}",
        "none",
        f"{mean(result['fit_s'] for result in found):.0f}",
        "none",
    ]
    if method == OURS:
        cells[6] = f"{mean(result['log_likelihood'] for result in found):.3f}"
        speeds = [mean(r["rows_per_s"][kind] for r in found) for kind in ("all", "complete")]
        cells[8] = ", ".join(f"{speed:,.0f}" for speed in speeds)
    return f"| {' | '.join(cells)} |"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m bench quality", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of NAME.csv")
    parser.add_argument("--tables", nargs="+", metavar="NAME", help="tables to measure (all)")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS, metavar="NAME")
    parser.add_argument("--seeds", type=int, default=1, help="number of random splits (1)")
    parser.add_argument(
        "--output", type=Path, default=Path("data/bench/quality"), help="folder of the results"
    )
    return parser
