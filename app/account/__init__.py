"""Routes about the caller: key, project, usage, version; and keys of the project."""
