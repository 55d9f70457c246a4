"""Output of commands and the options that they share."""
