"""Sinh-arcsinh flows for densityd."""

import flows  # noqa: F401  it loads this package's family, which imports parts of it
