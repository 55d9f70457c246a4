"""Published experiments as recipes, run through the training code that jobs use."""
