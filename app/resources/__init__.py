"""Parts that routes of datasets, models and jobs share: listings, labels, ETags, large responses."""
