"""Tables of numbers, categories and gaps, beside SDV."""
