"""PyTorch tensors as arrays: our own forward and backward passes on them."""

from typing import Any

from benchmarks.conformance.cases import Case
from benchmarks.conformance.namespaces import namespace_cases


def cases() -> list[Case]:
    """One a variant."""
    return namespace_cases(_namespace)


def _namespace() -> Any:
    from array_api_compat import torch

    return torch
