"""PyTorch: state dicts of its GRU, both ways, and files of forecasters; what is refused, and that no code is run."""

import json
import os
import pickle
import sys
import tracemalloc
import zipfile

import numpy as np
import pytest

from gru_xp.errors import ArgumentError, CheckpointError, GruXpError, NotFittedError
from gru_xp.forecasting import Forecaster
from gru_xp.interop import torch as interop
from gru_xp.interop.torch import from_torch, load_torch, save_torch, to_torch
from gru_xp.nn.stack import gru_stack_forward

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.peer

TOLERANCES = {"float32": {"rtol": 0, "atol": 2e-6}, "float64": {"rtol": 0, "atol": 1e-14}}
SETTINGS = [
    {"scaling": "last"},
    {"scaling": "standard", "dtype": "float64"},
    {"num_layers": 2, "bidirectional": True, "dropout": 0.2, "recurrent_dropout": 0.1},
]


@pytest.fixture
def make_gru(rng):
    """``make_gru(L, D, I=3, H=5, dtype="float64", bias=True)``: a torch.nn.GRU none of whose numbers is zero."""

    def make_gru(L, D, I=3, H=5, dtype="float64", bias=True):  # noqa: E741
        options = {"num_layers": L, "bidirectional": D == 2, "bias": bias, "dtype": getattr(torch, dtype)}
        gru = torch.nn.GRU(I, H, batch_first=True, **options)
        with torch.no_grad():
            for parameter in gru.parameters():
                parameter.copy_(torch.from_numpy(0.7 * rng.standard_normal(parameter.shape)))
        return gru

    return make_gru


def run_both(gru, layers, draw, dtype):
    """What both make of the same sequences of several lengths, from states that are not zero."""
    I, H = gru.input_size, gru.hidden_size  # noqa: E741
    x, h0 = draw(np, (4, 6, I), dtype), draw(np, (len(layers) * len(layers[0]), 4, H), dtype)
    lengths = [2, 6, 1, 5]
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        torch.from_numpy(x), torch.tensor(lengths), batch_first=True, enforce_sorted=False
    )
    with torch.no_grad():
        packed, h_last = gru(packed, torch.from_numpy(h0))
    h, _ = torch.nn.utils.rnn.pad_packed_sequence(packed, batch_first=True)
    own = gru_stack_forward(x, h0, layers, lengths=lengths)
    return (h.numpy(), h_last.numpy()), own[:2]


# --- state dicts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_torch_computes_what_the_layers_do(make_gru, draw_layers, draw, stack, dtype):
    layers, gru = draw_layers(*stack, dtype=dtype), make_gru(*stack, dtype=dtype)
    gru.load_state_dict(to_torch(layers))
    for theirs, own in zip(*run_both(gru, layers, draw, dtype), strict=True):
        np.testing.assert_allclose(theirs, own, **TOLERANCES[dtype])


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_layers_compute_what_torch_does(make_gru, draw, stack, dtype, bias):
    gru = make_gru(*stack, dtype=dtype, bias=bias)
    layers = from_torch(gru.state_dict())
    assert (layers[0][0].bias.dtype, layers[0][0].reset) == (dtype, "after")
    for theirs, own in zip(*run_both(gru, layers, draw, dtype), strict=True):
        np.testing.assert_allclose(own, theirs, **TOLERANCES[dtype])


def test_layers_come_back_to_the_bit(draw_layers, assert_same_layers, stack):
    for dtype in ("float32", "float64"):
        layers = draw_layers(*stack, dtype=dtype)
        assert_same_layers(from_torch(to_torch(layers)), layers)


def test_a_prefix_leaves_other_names_alone(make_gru, assert_same_layers):
    gru = make_gru(2, 1)
    module = torch.nn.ModuleDict({"gru": gru, "linear": torch.nn.Linear(5, 1), "gru2": torch.nn.GRU(1, 2)})
    assert_same_layers(from_torch(module.state_dict(), prefix="gru."), from_torch(gru.state_dict()))


def test_host_arrays_serve_as_well(make_gru, assert_same_layers):
    state = make_gru(1, 2).state_dict()
    assert_same_layers(from_torch({name: tensor.numpy() for name, tensor in state.items()}), from_torch(state))


def test_neither_side_shares_memory_with_the_other(make_gru, draw_layers):
    state = make_gru(1, 1).state_dict()
    layers = from_torch(state)
    before = layers[0][0].weight_hh.copy()
    state["weight_hh_l0"].zero_()
    np.testing.assert_array_equal(layers[0][0].weight_hh, before)
    layers = draw_layers(1, 1)
    state = to_torch(layers)
    before = layers[0][0].bias_hn.copy()
    for tensor in state.values():
        tensor.zero_()
    np.testing.assert_array_equal(layers[0][0].bias_hn, before)


def test_no_random_numbers_of_torch_are_drawn(draw_layers):
    state = torch.get_rng_state()
    from_torch(to_torch(draw_layers(1, 2)))
    assert torch.equal(torch.get_rng_state(), state)


def test_reset_before_is_refused_by_name(draw_layers):
    for given in (None, "before"):
        with pytest.raises(CheckpointError, match=r'reset="before" .*torch.nn.GRU.*reset="after"'):
            to_torch(draw_layers(1, 1, reset="before"), reset=given)
    for reset, parts in (("middle", "reset is 'middle'"), ("before", "reset is 'before'; it must be 'after'")):
        with pytest.raises(ArgumentError, match=parts):
            to_torch(draw_layers(1, 1), reset=reset)


def test_what_is_no_gru_is_refused_by_name(refused):
    def state(**options):
        return torch.nn.GRU(3, 5, 2, **options).state_dict()

    def with_l1(function):
        return {name: function(value) if name == "weight_ih_l1" else value for name, value in state().items()}

    def without(name, **options):
        return {other: value for other, value in state(**options).items() if other != name}

    for given, *parts in (
        (torch.nn.LSTM(3, 5).state_dict(), "weight_hh_l0 has shape (20, 5)", "LSTM"),
        (torch.nn.RNN(3, 5).state_dict(), "weight_hh_l0 has shape (5, 5)", "plain RNN"),
        (torch.nn.LSTM(3, 5, proj_size=2).state_dict(), "weight_hr_l0 is a projection (proj_size)"),
        (torch.nn.Linear(3, 5).state_dict(), "weight is no parameter of a torch.nn.GRU"),
        ({f"rnn.{k}": v for k, v in state().items()}, "rnn.weight_ih_l0 ", "prefix='rnn.'"),
        ({}, "weight_ih_l0 is missing"),
        (torch.nn.GRU(3, 5), "the state dict is a GRU", "names to tensors"),
        (without("weight_hh_l0"), "weight_hh_l0 is missing"),
        ({k: v for k, v in state().items() if "l0" not in k}, "weight_ih_l0 is missing"),
        ({k.replace("l1", "l9999"): v for k, v in state().items()}, "weight_ih_l1 is missing"),
        (without("bias_hh_l1"), "bias_hh_l1 is missing"),
        (without("weight_ih_l1_reverse", bidirectional=True), "weight_ih_l1_reverse is missing"),
        (with_l1(lambda v: v * torch.nan), "weight_ih_l1", "NaN"),
        (with_l1(lambda v: v.int()), "weight_ih_l1 has dtype torch.int32"),
        (with_l1(lambda v: v.bfloat16()), "weight_ih_l1 has dtype torch.bfloat16"),
        (with_l1(lambda v: v.double()), "weight_ih_l1 has dtype float64", "float32"),
        (with_l1(lambda v: v[:, 1:]), "weight_ih_l1 has shape (15, 4)", "(15, 5)"),
        (with_l1(str), "weight_ih_l1 is a str", "tensor"),
        (with_l1(lambda v: v.to_sparse()), "weight_ih_l1 is a torch.sparse_coo tensor"),
        (with_l1(lambda v: v.to("meta")), "weight_ih_l1 ", "on meta"),
    ):
        with refused(CheckpointError, *parts, case=parts):
            from_torch(given)


def test_a_prefix_that_nothing_has_is_refused(make_gru):
    with pytest.raises(CheckpointError, match=r"^gru\.weight_ih_l0 is missing"):
        from_torch(make_gru(1, 1).state_dict(), prefix="gru.")


def test_a_wrong_conversion_is_noticed(make_gru, draw_layers, monkeypatch):
    state, layers = make_gru(1, 1).state_dict(), draw_layers(1, 1)
    monkeypatch.setattr(interop, "ORDER", "zrn")
    with pytest.raises(CheckpointError, match=r"^from torch: .* h differs"):
        from_torch(state)
    with pytest.raises(CheckpointError, match=r"^to torch: .* h differs"):
        to_torch(layers)


# --- files ------------------------------------------------------------------------------------------------------


DISTRIBUTIONS = [{"loss": "quantile", "horizon": 2}, {"loss": "poisson", "scaling": "window", "linear_skip": True}]


@pytest.mark.parametrize("settings", [*SETTINGS, *DISTRIBUTIONS], ids=str)
def test_a_forecaster_comes_back(learn, series, tmp_path, settings):
    forecaster = learn(reset="after", **settings)
    forecaster.notes = {"file": "näme.csv"}
    save_torch(forecaster, tmp_path / "model.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]
    back = load_torch(tmp_path / "model.pt", device="cpu")
    assert back.settings() == forecaster.settings()
    assert (back.columns, back.best_epoch, back.notes) == (forecaster.columns, forecaster.best_epoch, forecaster.notes)
    np.testing.assert_array_equal(back.predict(series), forecaster.predict(series))
    np.testing.assert_array_equal(back.forecast(series, 5), forecaster.forecast(series, 5))
    back.save(tmp_path / "model.safetensors")
    again = Forecaster.load(tmp_path / "model.safetensors", device="cpu")
    np.testing.assert_array_equal(again.predict(series), forecaster.predict(series))


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_torch_alone_predicts_what_the_forecaster_does(learn, series, tmp_path, settings):
    forecaster = learn(reset="after", **settings)
    save_torch(forecaster, tmp_path / "model.pt")
    state = torch.load(tmp_path / "model.pt", weights_only=True)
    description = json.loads(state.pop("gru_xp"))
    options = description["settings"]
    D, dtype = 1 + options["bidirectional"], getattr(torch, options["dtype"])
    gru = torch.nn.GRU(3, options["hidden_size"], options["num_layers"], bidirectional=D == 2, batch_first=True)
    module = torch.nn.ModuleDict({"gru": gru, "linear": torch.nn.Linear(D * options["hidden_size"], 1)}).to(dtype)
    module.load_state_dict(state)
    scaler = {name: np.asarray(value) for name, value in description["scaler"].items() if name != "kind"}
    windows = np.stack([series[i : i + 5] for i in range(len(series) - 5)])
    if options["scaling"] == "last":
        level, unit = windows[:, -1:, :], scaler["change_std"]
    else:
        level, unit = scaler["mean"][None, None, :], scaler["std"]
    with torch.no_grad():
        _, h_last = module["gru"](torch.from_numpy((windows - level) / unit).to(dtype))
        y = module["linear"](torch.cat(list(h_last[-D:]), dim=1))[:, 0].double().numpy()
    np.testing.assert_allclose(level[:, 0, 0] + y * unit[0], forecaster.predict(series), rtol=1e-6)


def test_several_steps_from_patches_beside_a_skip(learn, series, tmp_path):
    settings = {"horizon": 3, "patches": 2, "linear_skip": True, "scaling": "window"}
    forecaster = learn(reset="after", **settings)
    save_torch(forecaster, tmp_path / "model.pt")
    state = torch.load(tmp_path / "model.pt", weights_only=True)
    assert (state["gru.weight_ih_l0"].shape, state["skip.weight"].shape) == ((12, 9), (3, 5))
    back = load_torch(tmp_path / "model.pt", device="cpu")
    np.testing.assert_array_equal(back.forecast(series, 7), forecaster.forecast(series, 7))
    state["skip.weight"] += 0.01
    torch.save(state, tmp_path / "other.pt")
    other = load_torch(tmp_path / "other.pt", device="cpu")
    assert np.abs(other.forecast(series, 7) - forecaster.forecast(series, 7)).min() > 0
    del state["skip.bias"]
    torch.save(state, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=r"skip\.bias"):
        load_torch(tmp_path / "other.pt")


def test_a_forecaster_must_be_representable(learn, tmp_path):
    path = tmp_path / "model.pt"
    with pytest.raises(CheckpointError, match=r'reset="before" .*\.onnx, .* --reset after$'):
        save_torch(learn(), path)
    with pytest.raises(CheckpointError, match=r"zoneout=0\.1 "):
        save_torch(learn(reset="after", zoneout=0.1), path)
    with pytest.raises(CheckpointError, match="transform='diff' "):
        save_torch(learn(reset="after", transform="diff"), path)
    with pytest.raises(NotFittedError, match="not fitted"):
        save_torch(Forecaster(reset="after"), path)
    for wrong in (None, np.ones(3)):
        with pytest.raises(ArgumentError, match=f"^forecaster is a {type(wrong).__name__}; it must be a Forecaster$"):
            save_torch(wrong, path)
    assert not list(tmp_path.iterdir())


def test_a_wrong_file_is_noticed_and_not_left_behind(learn, tmp_path, monkeypatch):
    path = tmp_path / "model.pt"
    monkeypatch.setattr(torch, "save", spoil(torch.save))
    with pytest.raises(CheckpointError, match="read back"):
        save_torch(learn(reset="after"), path)
    assert not list(tmp_path.iterdir())


def spoil(save):
    return lambda state, file: save(state | {"linear.bias": state["linear.bias"] + 1}, file)


def test_an_output_layer_that_is_read_wrongly_is_noticed(learn, tmp_path, monkeypatch):
    linear = torch.nn.functional.linear
    monkeypatch.setattr(torch.nn.functional, "linear", lambda x, weight, bias: linear(x, weight, bias + 1e-3))
    with pytest.raises(CheckpointError, match=r"^to torch: .* prediction differs"):
        save_torch(learn(reset="after"), tmp_path / "model.pt")
    assert not list(tmp_path.iterdir())


class Bomb:
    """Pickles to a call, which whoever unpickles it makes."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("how", ["torch", "pickle", "hidden"])
def test_code_in_a_file_is_refused_and_not_run(learn, tmp_path, how):
    trace, path = tmp_path / "trace", tmp_path / "model.pt"
    save_torch(learn(reset="after"), path)
    state = torch.load(path, weights_only=True)
    if how == "pickle":
        path.write_bytes(pickle.dumps(state | {"bomb": Bomb(trace)}))
    else:
        torch.save(Bomb(trace) if how == "torch" else state | {"linear.bias": Bomb(trace)}, path)
    with pytest.raises(CheckpointError, match=r"model\.pt: .*nothing in it was run") as refused:
        load_torch(path, device="cpu")
    assert "\n" not in str(refused.value)
    assert not trace.exists()
    if how != "pickle":  # the bomb works
        torch.load(path, weights_only=False)
        assert trace.exists()


def test_compressed_parts_are_not_unpacked(learn, tmp_path, monkeypatch, refused):
    """The file is refused in little memory, before PyTorch reads it."""
    path = tmp_path / "model.pt"
    save_torch(learn(reset="after"), path)
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as bomb:
        for part in archive.namelist():
            bomb.writestr(part, archive.read(part))
        bomb.writestr("archive/data/99", bytes(2**26))
    assert (tmp_path / "bomb.pt").stat().st_size < 2**20
    monkeypatch.setattr(torch, "load", lambda *arguments, **options: pytest.fail("it was asked"))
    tracemalloc.start()
    try:
        with refused(CheckpointError, "bomb.pt", "compressed"):
            load_torch(tmp_path / "bomb.pt", device="cpu")
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


def test_tensors_that_say_they_are_larger_than_the_file(learn, tmp_path, refused):
    path = tmp_path / "model.pt"
    save_torch(learn(reset="after"), path)
    state = torch.load(path, weights_only=True)
    torch.save(state | {"linear.bias": torch.ones(1).expand(10**12)}, path)
    assert path.stat().st_size < 10**5
    with refused(CheckpointError, "model.pt", "linear.bias has shape [1000000000000]"):
        load_torch(path, device="cpu")


def test_files_of_any_size_are_not_read(tmp_path):
    with (tmp_path / "model.pt").open("wb") as file:
        file.truncate(10**10)
    with pytest.raises(CheckpointError, match=r"model\.pt: larger than 1,073,741,824 bytes"):
        load_torch(tmp_path / "model.pt", device="cpu")


def test_names_in_a_file_do_not_reach_the_terminal_as_they_are():
    for name in ("gru.\x1b[31m", "weight_hr_l\x1b"):
        with pytest.raises(CheckpointError, match=r"x1b") as error:
            from_torch({name: torch.ones(1)})
        assert str(error.value).isprintable()


def test_a_torch_that_does_not_keep_its_promise_is_not_asked(tmp_path, monkeypatch):
    torch.save({"linear.bias": torch.ones(1)}, tmp_path / "model.pt")
    monkeypatch.setattr(torch, "load", lambda *arguments, **options: pytest.fail("it was asked"))
    for version in ("2.5.1", "1.13.0+cpu"):
        monkeypatch.setattr(torch, "__version__", version)
        with pytest.raises(GruXpError, match=r"may run code .* pip install 'torch>=2\.6'"):
            load_torch(tmp_path / "model.pt", device="cpu")


def test_files_that_are_no_models_are_refused(tmp_path):
    path = tmp_path / "model.pt"
    with pytest.raises(CheckpointError, match="does not exist"):
        load_torch(path)
    with pytest.raises(CheckpointError, match="is a directory"):
        load_torch(tmp_path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_torch(tmp_path / ("x" * 300))
    for content in (b"", b"PK\x03\x04", b"text", b"\x80\x02."):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="tensors alone") as error:
            load_torch(path)
        assert "\n" not in str(error.value)
    for held in (torch.ones(3), [1, 2], {1: torch.ones(3)}):
        torch.save(held, path)
        with pytest.raises(CheckpointError, match="it must hold tensors by name"):
            load_torch(path)
    torch.save(torch.nn.GRU(3, 5), path)
    with pytest.raises(CheckpointError, match="not a module"):
        load_torch(path)
    torch.save(torch.nn.GRU(3, 5).state_dict(), path)
    with pytest.raises(CheckpointError, match=r"no description .* use gru_xp\.interop\.from_torch"):
        load_torch(path)


def changed_description(**settings):
    def change(state):
        description = json.loads(state["gru_xp"])
        description["settings"] |= settings
        state["gru_xp"] = json.dumps(description)

    return change


def changed_columns(state):
    description = json.loads(state["gru_xp"])
    description["scaler"]["mean"].append(1.0)
    state["gru_xp"] = json.dumps(description)


def setting(name, value):
    return lambda state: state.__setitem__(name, value)


DAMAGES = {
    "no linear layer": (lambda state: state.pop("linear.weight"), "linear.weight is missing"),
    "no layer": (
        lambda state: [state.pop(name) for name in list(state) if "gru." in name],
        "gru.weight_ih_l0 is missing",
    ),
    "part of a layer": (lambda state: state.pop("gru.bias_hh_l0"), "gru.bias_hh_l0 is missing"),
    "nan": (lambda state: state["linear.bias"].fill_(torch.nan), "linear.bias", "NaN"),
    "shape": (setting("linear.bias", torch.ones(2)), "shapes"),
    "size": (changed_description(hidden_size=5), "shapes"),
    "setting": (changed_description(depth=5), "description is damaged"),
    "reset": (changed_description(reset="before"), "reset='after'", "'before'"),
    "dtype": (changed_description(dtype="float64"), "weights are not float64"),
    "zoneout": (changed_description(zoneout=0.5), "zoneout=0.0", "0.5"),
    "window": (changed_description(seq_length=10**9), "1,000,000,000 rows", "too large"),
    "scaler": (changed_columns, "scaler"),
    "no JSON": (setting("gru_xp", "{"), "description is damaged"),
    "deep JSON": (setting("gru_xp", "[" * 100_000), "description is damaged"),
    "list": (setting("gru_xp", "[]"), "description is damaged", "no object"),
    "no text": (setting("gru_xp", 3), "no description"),
}


def test_damaged_files_are_refused(learn, tmp_path, refused):
    path = tmp_path / "model.pt"
    for damage, (change, *parts) in DAMAGES.items():
        save_torch(learn(reset="after"), path)
        state = torch.load(path, weights_only=True)
        change(state)
        torch.save(state, path)
        with refused(CheckpointError, f"{path}: ", *parts, case=damage):
            load_torch(path, device="cpu")


def test_without_torch_one_line_says_what_to_do(draw_layers, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(GruXpError, match=r"needs torch, .* 'gru-xp\[parity\]'$"):
        to_torch(draw_layers(1, 1), reset="after")


def test_a_flipped_byte_is_noticed(learn, tmp_path):
    forecaster = learn(reset="after")
    path = tmp_path / "model.pt"
    save_torch(forecaster, path)
    whole = path.read_bytes()
    weight = forecaster.params.gru[0][0].weight_hh[-1, :4].tobytes()  # the candidate's rows stand as they are
    assert whole.count(weight) == 1
    path.write_bytes(whole.replace(weight, bytes([weight[0] ^ 1]) + weight[1:]))
    with pytest.raises(CheckpointError, match=r"model.pt: damaged \(.*\); use another copy$"):
        load_torch(path)
