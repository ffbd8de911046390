import ast
import importlib
import math
import subprocess
import sys
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

import gru_xp
from gru_xp import errors

pytestmark = pytest.mark.compat

PACKAGES = [
    "gru_xp",
    *(
        f"gru_xp.{name}"
        for name in ("devices", "forecasting", "interop", "io", "nn", "pretrained", "reporting", "training")
    ),
]


def packages_with_names():
    for name in PACKAGES:
        package = importlib.import_module(name)
        if hasattr(package, "__all__"):
            yield package


def imported_names(package):
    """What the package's ``__init__`` imports from the package: name and home."""
    tree = ast.parse(Path(package.__file__).read_text(encoding="utf-8"))
    return {
        alias.asname or alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gru_xp")
        for alias in node.names
    }


def test_all_is_sorted_and_complete():
    for package in packages_with_names():
        names = imported_names(package)
        assert list(package.__all__) == sorted(set(package.__all__)), package.__name__
        assert set(package.__all__) == set(names), package.__name__
        for name, home in names.items():
            assert getattr(package, name) is getattr(importlib.import_module(home), name), (package.__name__, name)
            assert not name.startswith("_"), (package.__name__, name)


def test_conversions_and_inference_are_public():
    names = {f"{way}_{peer}" for way in ("to", "from") for peer in ("torch", "keras", "onnx")}
    assert names | {"gru_to_onnx", "gru_from_onnx"} <= set(gru_xp.interop.__all__)
    assert "GRUInference" in gru_xp.nn.__all__


def test_names_that_have_moved_work_with_a_warning():
    moved = [(name, home, name) for home, names in gru_xp._MOVED.items() for name in names]
    for name, home, now in [*moved, ("init_params", "gru_xp", "init_gru_params")]:
        with pytest.warns(DeprecationWarning, match=rf"{name} .*{home}\.{now}"):
            value = getattr(gru_xp, name)
        assert value is getattr(importlib.import_module(home), now), name
        assert name not in gru_xp.__all__


def test_dir():
    assert sorted(dir(gru_xp)) == sorted([*gru_xp.__all__, "__version__"])


def test_star():
    names = {}
    exec("from gru_xp import *", names)
    assert set(gru_xp.__all__) <= set(names)


def test_version():
    assert gru_xp.__version__ == version("gru-xp")


def test_an_unknown_name():
    with pytest.raises(AttributeError, match=r"gru_xp.*lstm_forward"):
        gru_xp.lstm_forward  # noqa: B018
    with pytest.raises(ImportError, match="lstm_forward"):
        from gru_xp import lstm_forward  # noqa: F401


def test_public_names_are_explained():
    for name in gru_xp.__all__:
        assert (getattr(gru_xp, name).__doc__ or "").strip(), name


def test_errors_have_one_base():
    for name, base in {
        "ArgumentError": ValueError,
        "ShapeError": ValueError,
        "DataError": ValueError,
        "DeviceError": RuntimeError,
        "MemoryLimitError": MemoryError,
        "CheckpointError": ValueError,
        "WorkerError": RuntimeError,
    }.items():
        error = getattr(errors, name)
        assert issubclass(error, gru_xp.GruXpError), name
        assert issubclass(error, base), name


def imported_by(*statements):
    """Names of all modules that a new Python has imported after these statements."""
    code = "\n".join([*statements, "import sys", "print(*sys.modules)"])
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_importing_is_cheap():
    slow = {"pandas", "matplotlib", "cupy", "torch", "keras", "onnx", "onnxruntime"}
    assert not imported_by("import gru_xp") & {
        *slow,
        "numpy",
        "array_api_compat",
        "click",
        "gru_xp.nn",
        "gru_xp.devices",
    }
    assert not slow & imported_by(
        "from gru_xp import gru_forward",
        "from gru_xp import Forecaster",
        "from gru_xp import read_series",
        "import gru_xp.interop",
        "from gru_xp import to_torch, to_keras, to_onnx",
    )


def test_refused_arguments_are_value_errors_of_gru_xp():
    """One of each function that takes settings."""
    x, params = np.ones((2, 3, 1)), gru_xp.nn.init_network_params(1, 2, 1, xp=np, dtype=np.float64)
    config = gru_xp.training.TrainingConfig(num_epochs=1, learning_rate=0.1)
    chunks = {"chunk_length": 2, "config": config, "device": "cpu"}
    changed = gru_xp.Forecaster()
    changed.hidden_size = -1
    fitted = gru_xp.Forecaster(hidden_size=2, num_epochs=1).fit(np.arange(50.0), device="cpu")
    for case, call in {
        "device": lambda: gru_xp.resolve_device("gpu"),
        "to_device": lambda: gru_xp.devices.to_device(x, None),
        "rate": lambda: gru_xp.training.TrainingConfig(num_epochs=1, learning_rate=10**400),
        "choice": lambda: gru_xp.training.TrainingConfig(num_epochs=1, learning_rate=0.1, optimizer=np.ones(2)),
        "attribute": lambda: changed.fit(np.arange(50.0), device="cpu"),
        "layers": lambda: gru_xp.nn.init_gru_stack_params(1, 2, num_layers=2**70, xp=np),
        "hidden size": lambda: gru_xp.init_gru_params(1, 2**70, xp=np),
        "input size": lambda: gru_xp.nn.init_network_params(10**5000, 2, 1, xp=np),
        "output size": lambda: gru_xp.nn.init_linear_params(2**10, 2**30, xp=np),
        "size of a stack": lambda: gru_xp.nn.init_gru_stack_params(2**16, 2**16, xp=np),
        "digits": lambda: gru_xp.nn.init_gru_stack_params(1, 2, num_layers=10**5000, xp=np),
        "namespace": lambda: gru_xp.init_gru_params(1, 2, xp=0),
        "device of arrays": lambda: gru_xp.init_gru_params(1, 2, xp=np, device="x"),
        "dtype": lambda: gru_xp.init_gru_params(1, 2, xp=np, dtype=np.ones(2)),
        **{
            f"bidirectional={value}, {init.__name__}": partial(init, 1, 2, *sizes, bidirectional=value, xp=np)
            for value in ("x", math.nan, -1, None)
            for init, sizes in ((gru_xp.nn.init_gru_stack_params, ()), (gru_xp.nn.init_network_params, (1,)))
        },
        "mask": lambda: gru_xp.nn.dropout_mask((-1, 2), 0.5, seed=0, like=x),
        "like": lambda: gru_xp.nn.dropout_mask((1, 2), 0.5, seed=0, like=None),
        "shape": lambda: gru_xp.nn.dropout_mask(0, 0.5, seed=0, like=x),
        "large shape": lambda: gru_xp.nn.dropout_mask((2**70,), 0.5, seed=0, like=x),
        "seed": lambda: gru_xp.gradcheck(lambda x: (x, None), lambda dx, cache: (dx,), {"x": x}, seed=[]),
        "config": lambda: gru_xp.training.train_on_chunks(params, x, x, **chunks | {"config": None}),
        "loss": lambda: gru_xp.training.train_on_chunks(params, x, x, **chunks, loss=0),
        "callback": lambda: gru_xp.training.train_on_chunks(params, x, x, **chunks, callback=0),
        **{
            f"h0={h0}": partial(gru_xp.training.train_on_chunks, params, x, x, **chunks, h0=h0)
            for h0 in ("x", 1j, 0, [[[None]]], np.ones((1, 2, 2)) * 1j, np.ones((1, 2, 3)))
        },
        **{f"load {path}": partial(gru_xp.Forecaster.load, path) for path in (None, b"x", 0, "\0")},
        **{f"save {path}": partial(fitted.save, path) for path in (None, b"x", 0, "\0", "no folder/x")},
    }.items():
        try:
            call()
        except Exception as error:
            refused = error
        else:
            refused = None
        assert isinstance(refused, gru_xp.GruXpError), case
        assert isinstance(refused, ValueError), case
