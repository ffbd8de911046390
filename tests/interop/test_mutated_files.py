"""Files of other formats that were changed at random: refused with a CheckpointError, or read as a model that works."""

import numpy as np
import pytest

from gru_xp.errors import CheckpointError
from gru_xp.interop.files import export_file, import_file

pytestmark = pytest.mark.peer


def mutate(rng, content):
    """The bytes with some changed, or a part gone, or twice there."""
    start, stop = sorted(rng.integers(len(content) + 1, size=2))
    how = rng.integers(6)
    if how == 0:
        return content[:start]
    if how == 1:
        return content[:start] + content[stop:]
    if how == 2:
        return content[:stop] + content[start:]
    changed = bytearray(content)
    for at in rng.integers(len(content), size=rng.integers(1, 4)):
        changed[at] = rng.integers(256)
    return changed


@pytest.mark.parametrize(("suffix", "module"), [(".onnx", "onnxruntime"), (".pt", "torch")])
@pytest.mark.parametrize("n_files", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_mutated_files(learn, series, tmp_path, share, suffix, module, n_files):
    pytest.importorskip(module)
    rng = np.random.default_rng(7)
    export_file(learn(reset="after"), tmp_path / f"whole{suffix}")
    content = (tmp_path / f"whole{suffix}").read_bytes()
    path = tmp_path / f"model{suffix}"
    refused = 0
    n_files = n_files if n_files == 100 else round(n_files * share)
    for _ in range(n_files):
        path.write_bytes(mutate(rng, content))
        try:
            model = import_file(path, device="cpu")
        except CheckpointError as error:
            refused += 1
            message = str(error)
            assert message.startswith(f"{path}: ")
            assert message.isprintable()
            assert len(message) < len(str(path)) + 500
        else:
            assert np.isfinite(model.forecast(series, 2)).all()
    assert n_files / 2 < refused < n_files
