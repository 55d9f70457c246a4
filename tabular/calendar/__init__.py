"""Parts of dates in text, and the names of months and days."""
