"""Checks of refusals that the tests of layers share."""

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import pytest

from gru_xp.errors import ShapeError


@pytest.fixture
def refuses() -> Callable[..., AbstractContextManager[None]]:
    """``with refuses("x", "(3,)", "(B, I)"):`` an error whose message names these words in this order.

    The message is one line, which begins with the first, the argument, and ends with the last, what is allowed.
    """

    @contextmanager
    def refuses(*parts: str, error: type[Exception] = ShapeError) -> Iterator[None]:
        with pytest.raises(error) as caught:
            yield
        pattern = ".*".join(rf"(?<!\w){re.escape(part)}(?!\w)" for part in parts)
        assert re.fullmatch(pattern, str(caught.value)), f"{parts} are not in {str(caught.value)!r}"

    return refuses


@pytest.fixture
def misfits() -> Callable[..., list[tuple[Any, tuple[str, ...]]]]:
    """``misfits(name, array, expected, like="x")``: changed copies of a float64 array, with words of the error."""
    strict = pytest.importorskip("array_api_strict")

    def misfits(name: str, array: np.ndarray, expected: str, like: str = "x") -> list[tuple[Any, tuple[str, ...]]]:
        return [
            (array.tolist(), (name, "list", "array", expected)),
            (array.astype(np.int32), (name, "dtype", "int32", "float32 or float64")),
            (array.astype(np.float32), (name, "dtype", "float32", f"{like}, float64")),
            (strict.asarray(array), (name, "namespace", "array_api_strict", f"{like}, numpy")),
        ]

    return misfits
