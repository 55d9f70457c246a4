"""``python -m app``: the API process."""

import gc


def main() -> None:
    """Import the service and run it."""
    # Nothing of what is imported is garbage, which to find out takes a fifth of the start.
    gc.disable()
    from app.serve import main as serve  # noqa: PLC0415

    gc.enable()
    serve()


if __name__ == "__main__":
    main()
