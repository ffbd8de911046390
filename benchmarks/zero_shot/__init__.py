"""Zero-shot forecasts of public series and of sets at hand, compared with other libraries."""
