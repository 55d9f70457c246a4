"""Densities of rows with categories, missing cells and spikes: log P(d) + log p(x_O | d)."""
