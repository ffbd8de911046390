"""What the pretrained network sees of a series: patches of values, scaled by what came before, and simple forecasts."""

PATCH = 16
"""Values of a series that are one step of the network."""

CONTEXT = 512
"""Values before a forecast that are looked at, at most."""

HEAD = 64
"""Steps ahead that the network forecasts at once."""

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Levels of the quantiles that the network forecasts."""
