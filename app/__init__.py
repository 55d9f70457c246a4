"""HTTP: routes, wire formats and what surrounds them."""
