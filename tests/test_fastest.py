import importlib
import subprocess
import sys

import numpy as np
import pytest

from gru_xp import fastest
from gru_xp.devices.numpy_ops import NumpyOps
from gru_xp.fastest import fastest_ops
from gru_xp.nn.ops import Ops, PlainOps

METHODS = [name for name in vars(Ops) if not name.startswith("_")]


def test_numpy():
    assert isinstance(fastest_ops("numpy"), NumpyOps)
    assert fastest_ops("numpy") is fastest_ops("numpy")
    assert isinstance(fastest_ops("numpy", new=True), NumpyOps)
    assert fastest_ops("numpy", new=True) not in (fastest_ops("numpy"), fastest_ops("numpy", new=True))


@pytest.mark.parametrize("name", ["torch", "array_api_strict", "dask.array", "array_api_compat.numpy", ""])
def test_namespaces_without_a_faster_way(name):
    assert fastest_ops(name) is None


def test_makers_are_there():
    for name, module_name in fastest._MODULES.items():
        module = importlib.import_module(module_name)
        assert module.new_ops() is not module.new_ops()
        assert fastest_ops(name) is fastest_ops(name)


def test_all_ops_have_all_methods():
    """With the parameters that `Ops` names; the protocol is not there at run time."""
    from inspect import signature

    from gru_xp.devices.cupy_ops import CupyOps

    assert len(METHODS) >= 10
    for kind in (PlainOps, NumpyOps, CupyOps):
        for name in METHODS:
            wanted = signature(getattr(Ops, name)).parameters.values()
            found = signature(getattr(kind, name)).parameters.values()
            assert [(p.name, p.kind, p.default) for p in found] == [(p.name, p.kind, p.default) for p in wanted], name


@pytest.mark.parametrize(("plain", "imported"), [("", True), ("1", False)])
def test_devices_are_imported_when_they_are_needed(plain, imported):
    code = f"""
import os, sys
os.environ["GRU_XP_PLAIN"] = "{plain}"
import numpy as np
from gru_xp.nn import gru_forward, init_params
assert "gru_xp.devices" not in sys.modules
gru_forward(np.ones((2, 3, 4)), None, init_params(4, 5, xp=np, seed=1))
print(*sys.modules)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert ("gru_xp.devices.numpy_ops" in out) == imported
    assert not {"cupy", "torch", "pandas"} & set(out)


def test_the_way_of_an_array_is_that_of_its_namespace():
    from gru_xp.nn.ops import default_ops

    assert default_ops(np.ones(1)) is fastest_ops("numpy")
