"""Problem details (RFC 9457): their types and their construction."""
