"""The same functions in another namespace, precision or with other ops."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from array_api_compat import numpy as compat_numpy

from benchmarks.conformance.cases import LIMITS, Case, differences
from benchmarks.conformance.variants import Sizes, Variant, all_variants, results
from gru_xp.fastest import fastest_ops
from gru_xp.nn.params import map_arrays


def fast_results(variant: Variant, inputs: dict[str, Any], dtype: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of NumPy's fast path, whatever the environment says."""
    return results(variant, inputs, compat_numpy, dtype, ops=fastest_ops("numpy"))


def namespace_cases(import_namespace: Callable[[], Any]) -> list[Case]:
    """One a variant, in float64."""
    limit = LIMITS["float64"]
    return [
        Case(variant.group, variant.name, "float64", limit, partial(_compare, variant, import_namespace))
        for variant in all_variants()
    ]


def _compare(variant: Variant, import_namespace: Callable[[], Any]) -> dict[str, float]:
    inputs = variant.inputs(Sizes())
    theirs = results(variant, inputs, import_namespace(), "float64")
    return differences(fast_results(variant, inputs, "float64"), theirs)


def rounded(inputs: dict[str, Any]) -> dict[str, Any]:
    """The same numbers, but float32 has them too."""

    def to_single(array: Any) -> Any:
        return array.astype(np.float32).astype(np.float64)

    return {
        name: map_arrays(to_single, value) if isinstance(value, tuple) else to_single(value)
        for name, value in inputs.items()
    }
