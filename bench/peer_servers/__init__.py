"""The flow of the serving measurement behind other servers, as their own documentation shows it."""
