"""`python -m bench [upload|training|scoring]`: measure and print markdown tables."""

import sys

from bench import scoring, training, upload

MEASUREMENTS = {
    "upload": upload.measure,
    "training": training.measure,
    "scoring": scoring.measure,
}


def main() -> None:
    """Run the named measurements, or all."""
    for name in sys.argv[1:] or MEASUREMENTS:
        print(MEASUREMENTS[name](), flush=True)


if __name__ == "__main__":
    main()
