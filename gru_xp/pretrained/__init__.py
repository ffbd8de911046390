"""A pretrained GRU that forecasts series it has never seen, without training on them."""
