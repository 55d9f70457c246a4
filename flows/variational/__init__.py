"""Variational inference: the ELBO, targets, posteriors and their diagnostics."""
