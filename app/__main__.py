"""``python -m app``: the API process."""

import gc

if __name__ == "__main__":
    # Nothing of what is imported is garbage, which to find out takes a fifth of the start.
    gc.disable()
    from app.serve import main

    gc.enable()
    main()
