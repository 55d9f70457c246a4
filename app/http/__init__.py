"""Bodies of requests and responses: bounds, codings, streaming."""
