"""array-api-strict, which has what the standard has and nothing else."""

from typing import Any

from benchmarks.conformance.cases import Case
from benchmarks.conformance.namespaces import namespace_cases


def cases() -> list[Case]:
    """One a variant."""
    return namespace_cases(_namespace)


def _namespace() -> Any:
    import array_api_strict

    return array_api_strict
