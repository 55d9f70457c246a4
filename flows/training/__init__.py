"""Training by maximum likelihood: steps, rows, options, evaluation."""
