"""Pages for people: documentation, problem pages, health."""
