"""Cases to compare with other libraries; the generated page and the tests run the same list."""

import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from gru_xp.devices import cuda_problem
from gru_xp.interop.gates import HostArray, PeerGates, from_peer, to_peer
from gru_xp.nn.params import GRUParams, Reset
from gru_xp.nn.stack import Layers, gru_stack_backward, gru_stack_forward

Arrays: TypeAlias = Mapping[str, Any]
"""By name."""

LIMITS = {"float64": 1e-12, "float32": 1e-5}
"""Default limits of relative differences."""


@dataclass(frozen=True)
class Case:
    """One comparison with another library.

    Attributes
    ----------
    variant
        What is compared, such as ``"2 layers, both directions"``; a row in the table of the page.
    name
        Distinguishes the case from the others of its variant.
    dtype
        ``"float32"``, ``"float64"``, or ``"tf32"`` for float32 with products in TF32.
    limit
        Largest allowed difference.
    measure
        Computes both sides; returns the difference of ``"outputs"``, of ``"gradients"``, or of both.
    """

    variant: str
    name: str
    dtype: str
    limit: float
    measure: Callable[[], dict[str, float]]

    @property
    def id(self) -> str:
        """Name of the case, without spaces."""
        return "-".join(f"{self.variant} {self.name} {self.dtype}".replace(",", "").split())


@dataclass(frozen=True)
class Peer:
    """A library to compare with.

    Attributes
    ----------
    key
        Name on the command line.
    name
        Name on the page.
    packages
        Packages it needs; the page lists their versions.
    modules
        Modules of this folder; each has a function ``cases() -> list[Case]`` that imports none of the packages.
    text
        Description of the comparison, for the page.
    """

    key: str
    name: str
    packages: tuple[str, ...]
    modules: tuple[str, ...]
    text: str

    def missing(self) -> list[str]:
        """Packages that are not installed."""
        return [package for package in self.packages if not _installed(package)]

    def cases(self) -> list[Case]:
        """All comparisons, whether or not the packages are installed."""
        return [case for name in self.modules for case in import_module(f"benchmarks.conformance.{name}").cases()]


class CudaPeer(Peer):
    """CUDA, which a machine may have a library for without a device."""

    def missing(self) -> list[str]:
        """What the comparison lacks."""
        return super().missing() or (["a CUDA device"] if cuda_problem() is not None else [])


def _installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ValueError:  # it was made unavailable
        return False


PEERS = (
    Peer(
        "torch",
        "PyTorch",
        ("torch",),
        ("torch_cases", "torch_parts", "torch_losses"),
        '`torch.nn.GRU` and its building blocks, with gradients from autograd. PyTorch has only `reset="after"`. '
        "Sequences with lengths are packed unsorted; lengths are at least 1, because PyTorch rejects 0.",
    ),
    Peer(
        "keras",
        "Keras",
        ("keras", "torch"),
        ("keras_cases",),
        "`keras.layers.GRU` and `keras.layers.Bidirectional` on the PyTorch backend, with gradients from autograd. "
        '`reset_after=True` corresponds to `reset="after"`, `reset_after=False` to `reset="before"`. Lengths, '
        "which include 0, are passed as a mask.",
    ),
    Peer(
        "onnxruntime",
        "onnxruntime",
        ("onnxruntime", "onnx"),
        ("onnxruntime_cases",),
        "Models with a single GRU node, random weights and both biases. onnxruntime implements the operator in float32 "
        "only and computes no gradients. Differences are absolute; all states lie between -1 and 1.",
    ),
    Peer(
        "onnx",
        "ONNX node tests",
        ("onnx",),
        ("onnx_cases",),
        "All tests of the GRU operator in the `onnx` package: gru-xp computes the outputs from each test's inputs. "
        "Differences from the expected outputs are absolute. In all but one test, all weights are equal, so these "
        "tests would pass even if the update and reset gates were swapped; the onnxruntime cases would fail.",
    ),
    Peer(
        "jax",
        "JAX",
        ("jax",),
        ("jax_cases",),
        "JAX has no GRU layer. The gradients of gru-xp on NumPy arrays are compared with those that `jax.vjp` derives "
        "from gru-xp's forward functions on JAX arrays.",
    ),
    CudaPeer(
        "cuda",
        "CUDA",
        ("cupy",),
        ("cuda_cases",),
        "gru-xp on arrays of CuPy, with its fast paths, compared with gru-xp on arrays of NumPy. In TF32, products use "
        "float32 numbers that are rounded to 11 bits; the CPU's results are those of float32.",
    ),
)


# --- random problems --------------------------------------------------------------------------------------------


class Problem(NamedTuple):
    """Random input, a peer's random weights and ours that compute the same, and gradients from outside."""

    x: HostArray  # (B, T, I)
    h0: HostArray | None  # (L * D, B, H)
    gates: tuple[tuple[PeerGates, ...], ...]  # of the peer, by layer and direction
    layers: Layers
    lengths: HostArray | None  # (B,)
    dh: HostArray  # (B, T, D * H)
    dh_last: HostArray  # (L * D, B, H)
    order: str  # of the peer's gates
    reset: Reset

    @property
    def inside(self) -> HostArray:
        """``(B, T)``: which steps are within their sequence."""
        B, T, _ = self.x.shape
        lengths = np.full(B, T) if self.lengths is None else self.lengths
        return np.arange(T) < lengths[:, None]

    def params(self, direction: int = 0) -> GRUParams:
        """Ours, of a single layer."""
        return self.layers[0][direction]


def draw_problem(
    name: str,
    *,
    order: str,
    reset: Reset = "after",
    dtype: str = "float64",
    num_layers: int = 1,
    directions: int = 1,
    lengths: str | None = None,
    with_h0: bool = True,
    sizes: tuple[int, int, int, int] | None = None,
) -> Problem:
    """Draw a problem, and its sizes, from a name.

    Parameters
    ----------
    name
        Takes the part of a seed.
    order, reset
        Of the peer; see `from_peer`.
    dtype, num_layers, directions, with_h0
        Of the problem.
    lengths
        ``"random"`` (at least 1), ``"zeros"`` (random, and some 0), ``"equal"`` (all the same), or None.
    sizes
        B, T, I, H, instead of drawn ones.

    Returns
    -------
    Problem
    """
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    drawn = [int(rng.integers(low, high)) for low, high in ((2, 6), (3, 10), (1, 6), (2, 8))]
    B, T, I, H = sizes or drawn  # noqa: E741

    def draw(*shape: int, size: float = 1.0) -> HostArray:
        return (size * rng.standard_normal(shape)).astype(dtype)

    gates = tuple(
        tuple(
            PeerGates(
                draw(3 * H, directions * H if layer else I, size=0.8),
                draw(3 * H, H, size=0.8 / math.sqrt(H)),
                draw(3 * H, size=0.5),
                draw(3 * H, size=0.5),
            )
            for _ in range(directions)
        )
        for layer in range(num_layers)
    )
    layers = tuple(tuple(from_peer(part, order, reset) for part in layer) for layer in gates)
    given: HostArray | None = None
    if lengths == "equal":
        given = np.full(B, int(rng.integers(1, T + 1)))
    elif lengths is not None:
        given = rng.integers(1, T + 1, B)
        if lengths == "zeros":
            given[rng.integers(B)] = 0
    N = num_layers * directions
    return Problem(
        draw(B, T, I),
        rng.uniform(-1.0, 1.0, (N, B, H)).astype(dtype) if with_h0 else None,
        gates,
        layers,
        given,
        draw(B, T, directions * H),
        draw(N, B, H),
        order,
        reset,
    )


def our_stack(problem: Problem, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Outputs and gradients of `gru_stack_forward` and `gru_stack_backward`, the parameters' as the peer has them."""
    h, h_last, cache = gru_stack_forward(problem.x, problem.h0, problem.layers, lengths=problem.lengths, **options)
    assert cache is not None
    dx, dh0, dlayers = gru_stack_backward(problem.dh, cache, dh_last=problem.dh_last)
    gradients = {"x": dx, **({} if problem.h0 is None else {"h0": dh0}), **gradients_as_peer(dlayers, problem)}
    return {"h": h, "h_last": h_last}, gradients


def gradients_as_peer(dlayers: Layers, problem: Problem) -> dict[str, HostArray]:
    """Our gradients of the parameters in a peer's order of the gates and with its second bias."""
    gradients: dict[str, HostArray] = {}
    for number, layer in enumerate(dlayers):
        for direction, dparams in enumerate(layer):
            converted = to_peer(dparams, problem.order)
            H = dparams.hidden_size
            dbias_hh = converted.bias_ih.copy()  # it is added where the first bias is
            if problem.reset == "after":  # but for the candidate's
                dbias_hh[2 * H :] = converted.bias_hh[2 * H :]
            named = zip(PeerGates._fields, converted._replace(bias_hh=dbias_hh), strict=True)
            gradients |= {f"{name}[{number}][{direction}]": array for name, array in named}
    return gradients


# --- differences ------------------------------------------------------------------------------------------------


def difference(actual: Arrays, desired: Arrays, *, relative: bool = True) -> float:
    """The largest difference of any array's elements, in units of that array's largest element if it is `relative`.

    It is taken as it is where all of an array is 0, and is infinite where one is NaN.

    Raises
    ------
    ValueError
        The arrays have other names, shapes or dtypes.
    """
    if actual.keys() != desired.keys():
        raise ValueError(f"the arrays are {', '.join(actual)} and {', '.join(desired)}; they must be the same")
    largest = 0.0
    for name, b in desired.items():
        a, b = np.asarray(actual[name]), np.asarray(b)
        if (a.shape, a.dtype) != (b.shape, b.dtype):
            raise ValueError(f"{name} is {a.dtype} of shape {a.shape} and {b.dtype} of shape {b.shape}")
        if a.size:
            unit = float(np.max(np.abs(b))) or 1.0 if relative else 1.0
            found = float(np.max(np.abs(a.astype(np.float64) - b))) / unit
            largest = max(largest, math.inf if math.isnan(found) else found)
    return largest


def differences(ours: tuple[Arrays, Arrays], theirs: tuple[Arrays, Arrays]) -> dict[str, float]:
    """Of outputs and gradients."""
    return {what: difference(a, b) for what, a, b in zip(("outputs", "gradients"), ours, theirs, strict=True)}
