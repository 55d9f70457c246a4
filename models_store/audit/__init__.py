"""The audit trail: writing it and checking its chain."""
