"""Jobs: states, leases, retries and events."""
