"""JSON: read strictly, and read and written in pieces between which other threads run."""
