"""Child processes that read untrusted files."""
