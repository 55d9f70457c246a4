"""Training steps compiled with hand-written gradients."""
