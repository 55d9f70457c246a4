"""Files of the store: blobs, checkpoints, model files and parts of results."""
