"""Commands for administrators, on the database and the files of a service."""
