import subprocess
import sys
import threading
from inspect import signature

import numpy as np
import pytest

from gru_xp.devices.cupy_ops import CupyOps
from gru_xp.devices.numpy_ops import NumpyOps
from gru_xp.devices.primitives import Ops, PlainOps
from gru_xp.fastest import fastest_ops
from gru_xp.nn.scan import scan_of


def test_namespaces_with_fast_ops():
    """One for each thread, unless new ones are asked for; CuPy's need no CuPy until they compute."""
    for name, kind in (("numpy", NumpyOps), ("cupy", CupyOps)):
        assert isinstance(fastest_ops(name), kind)
        assert fastest_ops(name) is fastest_ops(name)
        assert isinstance(fastest_ops(name, new=True), kind)
        assert fastest_ops(name, new=True) not in (fastest_ops(name), fastest_ops(name, new=True))
    assert scan_of(np.ones(1)) is fastest_ops("numpy")
    others = []
    thread = threading.Thread(target=lambda: others.extend(scan_of(np.ones(1, dtype)) for dtype in ("f4", "f8")))
    thread.start()
    thread.join()
    assert isinstance(others[0], NumpyOps)
    assert others[0] is others[1] is not fastest_ops("numpy")


@pytest.mark.peer
def test_jax_has_a_scan_of_its_own():
    pytest.importorskip("jax")
    from gru_xp.devices.jax_scan import JaxScan

    assert isinstance(fastest_ops("jax.numpy"), JaxScan)
    assert fastest_ops("jax.numpy") is fastest_ops("jax.numpy")


def test_namespaces_without_fast_ops():
    for name in ("torch", "array_api_strict", "dask.array", "array_api_compat.numpy", ""):
        assert fastest_ops(name) is None, name


def test_all_ops_have_all_methods():
    """With the parameters that `Ops` names; the protocol is not there at run time."""
    methods = [name for name in vars(Ops) if not name.startswith("_")]
    assert "matmul" in methods
    for kind in (PlainOps, NumpyOps, CupyOps):
        for name in methods:
            wanted = signature(getattr(Ops, name)).parameters.values()
            found = signature(getattr(kind, name)).parameters.values()
            assert [(p.name, p.kind, p.default) for p in found] == [(p.name, p.kind, p.default) for p in wanted], (
                kind,
                name,
            )


@pytest.mark.parametrize(("plain", "imported"), [("", True), ("1", False)])
def test_devices_are_imported_when_they_are_needed(plain, imported):
    code = f"""
import os, sys
os.environ["GRU_XP_PLAIN"] = "{plain}"
import numpy as np
from gru_xp.nn import gru_forward, init_gru_params
assert "gru_xp.devices" not in sys.modules
gru_forward(np.ones((2, 3, 4)), None, init_gru_params(4, 5, xp=np, seed=1))
print(*sys.modules)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert ("gru_xp.devices.numpy_ops" in out) == imported
    assert not {"cupy", "torch", "pandas"} & set(out)
