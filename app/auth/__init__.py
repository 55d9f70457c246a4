"""Authentication, rate limits and the audit of calls."""
