import csv
import io
import sys

import numpy as np
import pytest

from gru_xp.data import bundled_file
from gru_xp.forecasting import Forecaster
from gru_xp.forecasting.windows import make_windows
from gru_xp.io.read import read_series

pytestmark = pytest.mark.compat


def forecast_of(outcome):
    assert outcome.code == 0, outcome.err
    return [float(row[2]) for row in list(csv.reader(io.StringIO(outcome.out)))[1:]]


@pytest.fixture(scope="module")
def unguarded(train_once):
    """A run whose forecasts are its model's, whatever they are worth; tests only look at it."""
    return train_once("GOOG.csv", "--no-guard")


@pytest.mark.peer
def test_onnxruntime_gives_the_numbers_of_forecast(app, unguarded, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    outcome = app("export", unguarded.folder, "model.onnx")
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "written to model.onnx\n")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    (windows,) = session.get_inputs()
    series = read_series(bundled_file("GOOG.csv")).values
    window, values = series[-windows.shape[1] :].copy(), []
    for _ in range(4):
        (prediction,) = session.run(None, {windows.name: window[None]})
        values.append(float(prediction[0]))
        window = np.concatenate([window[1:], window[-1:]])
        window[-1, 0] = values[-1]
    expected = forecast_of(app("forecast", unguarded.folder, "--steps", 4))
    np.testing.assert_allclose(values, expected, rtol=1e-6)


@pytest.mark.peer
def test_torch_reads_what_is_exported(app, after, tmp_path):
    torch = pytest.importorskip("torch")
    outcome = app("export", after.folder / "model.safetensors", "model.PT", "--quiet")
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "")
    state = torch.load(tmp_path / "model.PT", weights_only=True)
    forecaster = Forecaster.load(after.folder / "model.safetensors", device="cpu")
    k = -(-forecaster.window_length // 8)  # rows of a patch
    gru = torch.nn.GRU(k, 4, 2, bidirectional=True, batch_first=True)
    gru.load_state_dict({name.removeprefix("gru."): state[name] for name in state if name.startswith("gru.")})
    series = read_series(bundled_file("GOOG.csv"))
    windows, _ = make_windows(series.values, forecaster.window_length)
    with torch.no_grad():
        x = torch.from_numpy(forecaster.scaler.scale_windows(windows)).float()
        _, h_last = gru(torch.nn.functional.pad(x, (0, 0, -x.shape[1] % k, 0)).reshape(len(x), -1, k))
        y = torch.cat([h_last[-2], h_last[-1]], dim=1) @ state["linear.weight"].T + state["linear.bias"]
        y += x[:, :, 0] @ state["skip.weight"].T + state["skip.bias"]
    predictions = forecaster.scaler.unscale_predictions(y[:, 0].double().numpy(), windows)
    np.testing.assert_allclose(predictions, forecaster.predict(series), rtol=1e-6)


def test_a_suffix_that_says_no_format(app, goog, unchanged):
    for name in ("model.txt", "model", "model.onnx.gz"):
        with unchanged():
            outcome = app("export", goog.folder, name)
        assert outcome.code == 2
        assert all(text in outcome.err for text in (f"'{name}'", ".onnx", ".pt")), outcome.err


@pytest.mark.peer
def test_a_form_that_torch_does_not_have(app, unguarded, unchanged):
    pytest.importorskip("torch")
    with unchanged():
        app("export", unguarded.folder, "model.pt").assert_refused('reset="before"', ".onnx", "--reset after")


@pytest.mark.peer
@pytest.mark.parametrize(("name", "library"), [("model.onnx", "onnx"), ("model.pt", "torch")])
def test_a_model_that_is_told_of_gaps(app, write_csv, quick, unchanged, name, library):
    pytest.importorskip(library)
    write_csv(change={7: "", 30: "n/a"})
    assert app("train", "own.csv", "--missing", "mask", *quick, "--reset", "after", "--out", "run").code == 0
    with unchanged():
        app("export", "run", name).assert_refused('missing="mask"')


@pytest.mark.peer
def test_a_file_that_exists(app, after, unchanged, tmp_path):
    pytest.importorskip("torch")
    (tmp_path / "model.pt").write_text("mine")
    with unchanged():
        app("export", after.folder, "model.pt").assert_refused("model.pt exists", "--overwrite")
    assert app("export", after.folder, "model.pt", "--overwrite").code == 0
    assert (tmp_path / "model.pt").read_bytes() != b"mine"
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]
    model = tmp_path / "own.pt"
    model.write_bytes((after.folder / "model.safetensors").read_bytes())
    with unchanged():
        app("export", model, model, "--overwrite").assert_refused("own.pt", "another name")


def test_a_run_that_is_none(app, unchanged):
    with unchanged():
        app("export", "nowhere", "model.onnx").assert_refused("nowhere: does not exist")


@pytest.mark.peer
def test_a_folder_that_is_not_there(app, after, unchanged):
    pytest.importorskip("torch")
    with unchanged():
        app("export", after.folder, "no/model.pt").assert_refused("no/model.pt: cannot be written")


class NotInstalled:
    """Refuses a library, in `sys.meta_path`; for old array-api-compat, one that is None in `sys.modules` is there."""

    def __init__(self, library):
        self.library = library

    def find_spec(self, name, path=None, target=None):
        if name == self.library:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_a_library_that_is_not_there_is_asked_for(app, after, unchanged, monkeypatch):
    for library, name, extra in (("torch", "model.pt", "parity"), ("onnx", "model.onnx", "onnx")):
        monkeypatch.delitem(sys.modules, library, raising=False)
        monkeypatch.setattr(sys, "meta_path", [NotInstalled(library), *sys.meta_path])
        with unchanged():
            app("export", after.folder, name).assert_refused(library, f"pip install 'gru-xp[{extra}]'")
