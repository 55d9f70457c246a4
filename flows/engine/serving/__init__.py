"""Log densities and samples by compiled loops."""
