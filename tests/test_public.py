import ast
import importlib
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import gru_xp
from gru_xp import errors

PACKAGES = [
    "gru_xp",
    *(f"gru_xp.{name}" for name in ("devices", "forecasting", "interop", "nn", "reporting", "training")),
]


def packages_with_names():
    for name in PACKAGES:
        try:
            package = importlib.import_module(name)
        except ModuleNotFoundError:
            continue
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


@pytest.mark.parametrize("package", list(packages_with_names()), ids=lambda package: package.__name__)
def test_all_is_sorted_and_complete(package):
    assert list(package.__all__) == sorted(set(package.__all__))
    assert set(package.__all__) == set(imported_names(package))
    for name, home in imported_names(package).items():
        assert getattr(package, name) is getattr(importlib.import_module(home), name)
        assert not name.startswith("_")


def test_names_that_are_imported_late_are_those_that_are_declared():
    declared = imported_names(gru_xp)
    assert all(name in names for home, names in gru_xp._HOMES.items() for name in names)
    late = {name: home for home, names in gru_xp._HOMES.items() for name in names}
    assert {name: late.get(name, "gru_xp.nn") for name in gru_xp.__all__} == declared


def test_prediction_by_itself_is_public():
    assert gru_xp.GRUInference is importlib.import_module("gru_xp.nn.inference").GRUInference
    assert "GRUInference" in gru_xp.nn.__all__


def test_conversions_are_public():
    names = {f"{way}_{peer}" for way in ("to", "from") for peer in ("torch", "keras", "onnx")}
    for name in names | {"gru_to_onnx", "gru_from_onnx"}:
        assert getattr(gru_xp, name) is getattr(importlib.import_module("gru_xp.interop"), name)


def test_dir():
    assert sorted(dir(gru_xp)) == sorted([*gru_xp.__all__, "__version__"])


def test_star():
    names = {}
    exec("from gru_xp import *", names)
    assert set(gru_xp.__all__) <= set(names)


def test_version():
    assert gru_xp.__version__ == version("gru-xp")


def test_a_name_that_is_none():
    with pytest.raises(AttributeError, match="module 'gru_xp' has no attribute 'lstm_forward'"):
        gru_xp.lstm_forward  # noqa: B018
    with pytest.raises(ImportError, match="lstm_forward"):
        from gru_xp import lstm_forward  # noqa: F401


def test_public_names_are_explained():
    for name in gru_xp.__all__:
        assert (getattr(gru_xp, name).__doc__ or "").strip(), name


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("ShapeError", ValueError),
        ("DataError", ValueError),
        ("DeviceError", RuntimeError),
        ("MemoryLimitError", MemoryError),
        ("CheckpointError", ValueError),
    ],
)
def test_errors_have_one_base(name, base):
    error = getattr(gru_xp, name)
    assert error is getattr(errors, name)
    assert issubclass(error, gru_xp.GruXpError)
    assert issubclass(error, base)


@pytest.mark.parametrize(
    "statement",
    [
        "import gru_xp",
        "from gru_xp import gru_forward",
        "from gru_xp import Forecaster",
        "import gru_xp.interop",
        "from gru_xp import to_torch, to_keras, to_onnx",
    ],
)
def test_importing_is_cheap(statement):
    code = f"import sys; {statement}; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not set(out.split()) & {"pandas", "matplotlib", "cupy", "torch", "keras", "onnx", "onnxruntime"}
    if statement == "import gru_xp":
        assert not set(out.split()) & {"numpy", "array_api_compat", "click", "gru_xp.nn", "gru_xp.devices"}
