"""Finite differences, for every variant."""

from functools import partial

from benchmarks.conformance.cases import Case
from benchmarks.conformance.variants import Sizes, Variant, all_variants
from gru_xp.nn.gradcheck import gradcheck

LIMIT = 1e-7


def cases() -> list[Case]:
    """One a variant."""
    return [
        Case(variant.group, variant.name, "float64", LIMIT, partial(compare, variant)) for variant in all_variants()
    ]


def compare(variant: Variant) -> dict[str, float]:
    """The backward pass and the difference of forward passes."""
    report = gradcheck(variant.forward, variant.backward, variant.inputs(Sizes()), mode="direction", tolerance=LIMIT)
    return {"gradients": report.error}
