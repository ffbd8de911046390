"""float32 beside float64, over long sequences."""

from collections.abc import Iterator
from functools import partial
from itertools import product

import numpy as np

from benchmarks.conformance.cases import Case, differences
from benchmarks.conformance.namespaces import fast_results, rounded
from benchmarks.conformance.variants import Layer, Sizes, Stack, Variant
from gru_xp.nn.cell import RESETS

STEPS = (20, 200, 2000)
LIMIT = 2e-6


def cases() -> list[Case]:
    """Some variants, each over sequences of every length."""
    return [
        Case(f"T = {T}, {variant.group}", variant.name, "float32", LIMIT, partial(compare, variant, T))
        for T, variant in product(STEPS, _variants())
    ]


def _variants() -> Iterator[Variant]:
    for reset in RESETS:
        yield Layer(reset)
        yield Layer(reset, reverse=True, lengths=True)
        yield Layer(reset, lengths=True, keep_every=50)
        yield Layer(reset, masks="recurrent dropout and zoneout")
        yield Stack(reset, 2, 2, lengths=True)


def compare(variant: Variant, T: int) -> dict[str, float]:
    """The same numbers in both."""
    inputs = rounded(variant.inputs(Sizes(B=5, T=T, I=3, H=16)))
    double = fast_results(variant, inputs, "float64")
    outputs, gradients = (
        {name: array.astype(np.float64) for name, array in part.items()}
        for part in fast_results(variant, inputs, "float32")
    )
    return differences((outputs, gradients), double)
