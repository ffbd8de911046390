"""Presets: settings of a `Forecaster` by name.

The command line has its defaults from here. It shows them in ``--help``, so nothing that takes time is imported.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

RECIPE: Mapping[str, Any] = MappingProxyType(
    {
        "seq_length": "auto",
        "hidden_size": 32,
        "num_layers": 1,
        "bidirectional": False,
        "dropout": 0.0,
        "recurrent_dropout": 0.0,
        "zoneout": 0.0,
        "num_epochs": None,
        "learning_rate": 0.003,
        "optimizer": "adamw",
        "reduction": None,
        "batch_size": 64,
        "clip_norm": 1.0,
        "patience": None,
        "validation_ratio": 0.0,
        "scaling": "window",
        "reset": "before",
        "dtype": "float32",
        "seed": 0,
        "keep_every": None,
        "beta1": 0.9,
        "beta2": 0.99,
        "weight_decay": 0.0,
        "schedule": None,
        "warmup": None,
        "horizon": 1,
        "patches": 8,
        "linear_skip": True,
        "num_steps": None,
        "loss": "mae",
        "huber_delta": 1.0,
        "quantiles": (0.1, 0.5, 0.9),
        "season": "auto",
        "model": "gru",
        "guard": True,
        "refit": False,
        "transform": "none",
        "minimum": None,
        "maximum": None,
        "levels": (),
    }
)
"""All defaults of `Forecaster`: settings that were the best, or close to them, on series of many kinds, in seconds."""

ARTICLE: Mapping[str, Any] = MappingProxyType(
    {
        "seq_length": 10,
        "horizon": 1,
        "season": "auto",  # which its training does not use, but the table of errors does
        "model": "gru",
        "patches": 0,
        "linear_skip": False,
        "guard": False,
        "scaling": "standard",
        "loss": "mse",
        "optimizer": "sgd",
        "learning_rate": 1e-5,
        "schedule": "constant",
        "num_epochs": 1000,
        "patience": None,
        "batch_size": None,
        "clip_norm": None,
        "validation_ratio": 0.0,
    }
)
"""The settings of the article that this project starts from: gradient descent on the sum of squares, all epochs."""

PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType({"recipe": RECIPE, "article": {**RECIPE, **ARTICLE}})
"""By name, each with all settings."""
