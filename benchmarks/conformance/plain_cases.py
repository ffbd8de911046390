"""NumPy's fast path beside the plain expressions."""

from functools import partial

from array_api_compat import numpy as compat_numpy

from benchmarks.conformance.cases import LIMITS, Case, differences
from benchmarks.conformance.namespaces import fast_results, rounded
from benchmarks.conformance.variants import Sizes, Variant, all_variants, results
from gru_xp.nn.ops import PLAIN_OPS

SIZES = Sizes(B=37, T=9, I=3, H=17)


def cases() -> list[Case]:
    """One a variant and precision."""
    return [
        Case(variant.group, variant.name, dtype, limit, partial(compare, variant, dtype))
        for variant in all_variants()
        for dtype, limit in LIMITS.items()
    ]


def compare(variant: Variant, dtype: str) -> dict[str, float]:
    """Both paths on the same numbers."""
    inputs = rounded(variant.inputs(SIZES))
    return differences(
        fast_results(variant, inputs, dtype), results(variant, inputs, compat_numpy, dtype, ops=PLAIN_OPS)
    )
