"""Files and refusals that the tests of reading share."""

from collections.abc import Callable
from pathlib import Path

import pytest

from gru_xp.errors import DataError


@pytest.fixture(scope="session")
def refusal() -> Callable[..., Exception]:
    """``refusal(use, *parts, error=DataError)``: the error of `use()`, whose printable line has each of these parts."""

    def refusal(use: Callable[[], object], *parts: str, error: type[Exception] = DataError) -> Exception:
        try:
            result = use()
        except error as raised:
            message = str(raised)
            assert message.isprintable(), (parts, message)
            missing = [part for part in parts if part not in message]
            assert not missing, (missing, message)
            return raised
        pytest.fail(f"{result!r:.200} instead of {error.__name__} with {parts}")

    return refusal


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """``write(content)``: the path of a new file of these bytes, or this text in UTF-8 with its line ends as given."""

    def write(content: str | bytes, name: str = "series.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write
