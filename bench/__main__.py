"""`python -m bench [upload|training|scoring]`, or `anomaly --data DIR`: print markdown tables."""

import sys

from bench import scoring, training, upload

MEASUREMENTS = {
    "upload": upload.measure,
    "training": training.measure,
    "scoring": scoring.measure,
}


def main() -> None:
    """Run the named measurements, or all that need no data of the caller's."""
    names = sys.argv[1:]
    if names[:1] == ["anomaly"]:
        from bench import anomaly  # noqa: PLC0415  scikit-learn takes seconds to import

        print(anomaly.measure(names[1:]), flush=True)
        return
    if set(names) & {"-h", "--help"}:
        print(__doc__)
        return
    for name in names or MEASUREMENTS:
        print(MEASUREMENTS[name](), flush=True)


if __name__ == "__main__":
    main()
