"""Studies: comparisons over several data sets."""
