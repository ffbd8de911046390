"""``accuracy``: compare forecasts of public series with those of other libraries."""
