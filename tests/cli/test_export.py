import csv
import io
import sys

import numpy as np
import pytest

from gru_xp.forecasting import Forecaster
from gru_xp.forecasting.reading.csv_file import bundled_file, read_csv
from gru_xp.forecasting.windows import make_windows


@pytest.fixture(scope="session")
def after(run_script, tmp_path_factory):
    """The folder of a run with the reset gate as PyTorch has it; tests only look at it."""
    folder = tmp_path_factory.mktemp("after")
    options = ("--hidden-size", "4", "--num-epochs", "3", "--reset", "after", "--num-layers", "2", "--bidirectional")
    outcome = run_script("train", "GOOG.csv", *options, "--device", "cpu", "--out", "run", cwd=folder)
    assert outcome.code == 0, outcome.err
    return folder / "run"


def forecast_of(outcome):
    assert outcome.code == 0, outcome.err
    return [float(row[2]) for row in list(csv.reader(io.StringIO(outcome.out)))[1:]]


def test_onnxruntime_gives_the_numbers_of_forecast(app, goog, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    outcome = app("export", goog.folder, "model.onnx")
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "written to model.onnx\n")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    (windows,) = session.get_inputs()
    series = read_csv(bundled_file("GOOG.csv"), None, ()).values
    window, values = series[-windows.shape[1] :].copy(), []
    for _ in range(4):
        (prediction,) = session.run(None, {windows.name: window[None]})
        values.append(float(prediction[0]))
        window = np.concatenate([window[1:], window[-1:]])
        window[-1, 0] = values[-1]
    expected = forecast_of(app("forecast", goog.folder, "--steps", 4))
    np.testing.assert_allclose(values, expected, rtol=1e-6)


def test_torch_reads_what_is_exported(app, after, tmp_path):
    torch = pytest.importorskip("torch")
    outcome = app("export", after / "model.safetensors", "model.PT", "--quiet")
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "")
    state = torch.load(tmp_path / "model.PT", weights_only=True)
    forecaster = Forecaster.load(after / "model.safetensors", device="cpu")
    gru = torch.nn.GRU(1, 4, 2, bidirectional=True, batch_first=True)
    gru.load_state_dict({name.removeprefix("gru."): state[name] for name in state if name.startswith("gru.")})
    series = read_csv(bundled_file("GOOG.csv"), None, ())
    windows, _ = make_windows(series.values, forecaster.seq_length)
    with torch.no_grad():
        _, h_last = gru(torch.from_numpy(forecaster.scaler.scale_windows(windows)).float())
        y = torch.cat([h_last[-2], h_last[-1]], dim=1) @ state["linear.weight"].T + state["linear.bias"]
    predictions = forecaster.scaler.unscale_predictions(y[:, 0].double().numpy(), windows)
    np.testing.assert_allclose(predictions, forecaster.predict(series), rtol=1e-6)


@pytest.mark.parametrize("name", ["model.txt", "model", "model.onnx.gz"])
def test_a_suffix_that_says_no_format(app, goog, unchanged, name):
    with unchanged():
        outcome = app("export", goog.folder, name)
    assert outcome.code == 2
    assert f"'{name}' must end in .onnx or .pt" in outcome.err


def test_a_form_that_torch_does_not_have(app, goog, unchanged):
    pytest.importorskip("torch")
    with unchanged():
        outcome = app("export", goog.folder, "model.pt")
    assert outcome.code == 1
    assert 'reset="before" cannot be represented by torch.nn.GRU' in outcome.error
    assert outcome.error.endswith("; export to .onnx, or train with --reset after")


@pytest.mark.parametrize(("name", "library"), [("model.onnx", "onnx"), ("model.pt", "torch")])
def test_a_model_that_is_told_of_gaps(app, write_csv, quick, unchanged, name, library):
    pytest.importorskip(library)
    write_csv(change={7: "", 30: "n/a"})
    assert app("train", "own.csv", "--missing", "mask", *quick, "--reset", "after", "--out", "run").code == 0
    with unchanged():
        outcome = app("export", "run", name)
    assert outcome.code == 1
    assert outcome.error.startswith('missing="mask" cannot be represented: ')


def test_a_file_that_exists(app, after, unchanged, tmp_path):
    pytest.importorskip("torch")
    (tmp_path / "model.pt").write_text("mine")
    with unchanged():
        outcome = app("export", after, "model.pt")
    assert outcome.code == 1
    assert outcome.error == "model.pt exists; use --overwrite or another name"
    assert app("export", after, "model.pt", "--overwrite").code == 0
    assert (tmp_path / "model.pt").read_bytes() != b"mine"
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


def test_a_run_that_is_none(app, unchanged):
    with unchanged():
        outcome = app("export", "nowhere", "model.onnx")
    assert outcome.code == 1
    assert outcome.error.startswith("nowhere: does not exist")


def test_a_folder_that_is_not_there(app, after, unchanged):
    pytest.importorskip("torch")
    with unchanged():
        outcome = app("export", after, "no/model.pt")
    assert outcome.code == 1
    assert "no/model.pt: cannot be written" in outcome.error


@pytest.mark.parametrize(("library", "extra"), [("torch", "parity"), ("onnx", "onnx")])
def test_a_library_that_is_not_there_is_asked_for(app, after, unchanged, monkeypatch, library, extra):
    monkeypatch.setitem(sys.modules, library, None)
    with unchanged():
        outcome = app("export", after, "model.pt" if library == "torch" else "model.onnx")
    assert outcome.code == 1
    assert outcome.error == (f"the conversion needs {library}, which is not installed; pip install 'gru-xp[{extra}]'")
