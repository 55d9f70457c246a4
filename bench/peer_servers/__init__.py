"""Other servers with the flow of the serving measurement, as their own documentation shows."""
