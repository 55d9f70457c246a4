"""One file a revision, named by its day and what it does."""
