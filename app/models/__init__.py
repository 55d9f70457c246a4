"""Models: routes, checkpoints, registration and views."""
