"""Tables in files: their formats, readers and writers. No SQL, no HTTP, no flows."""
