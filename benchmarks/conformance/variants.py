"""Our layers in all their variants, to be held against differences, other namespaces, precisions and ops."""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Protocol

import numpy as np
from array_api_compat import array_namespace, device

from gru_xp.devices import to_host
from gru_xp.interop.gates import HostArray
from gru_xp.nn.cell import RESETS, Reset, gru_cell_backward, gru_cell_forward
from gru_xp.nn.dropout import dropout_mask, keep_mask
from gru_xp.nn.gru import gru_backward, gru_forward
from gru_xp.nn.linear import linear_backward, linear_forward
from gru_xp.nn.losses import mse_loss, softmax_cross_entropy
from gru_xp.nn.ops import Array, Namespace, Ops
from gru_xp.nn.params import GRUParams, LinearParams, map_arrays, named_arrays
from gru_xp.nn.stack import gru_stack_backward, gru_stack_forward

RATE, SEED = 0.4, 3

MASKS: dict[str, tuple[bool, bool | float]] = {
    "": (False, False),
    "recurrent dropout": (True, False),
    "zoneout": (False, True),
    "recurrent dropout and zoneout": (True, True),
    "zoneout by its mean": (False, 1.0 - RATE),
}
"""Whether there is a mask of the candidate, and whether one of the update gate, or a number."""


@dataclass(frozen=True)
class Sizes:
    """Of random input."""

    B: int = 4
    T: int = 5
    I: int = 2  # noqa: E741
    H: int = 3


class Variant(Protocol):
    """A layer with its settings: forward, backward, and random input for them."""

    @property
    def group(self) -> str:
        """What it is; a row of the page's table."""

    @property
    def name(self) -> str:
        """What sets it apart from others of the group."""

    def inputs(self, sizes: Sizes) -> dict[str, Any]:
        """Arguments of `forward`, by name: arrays in float64 on the host, and tuples of them."""

    @property
    def forward(self) -> Callable[..., tuple[Any, ...]]:
        """``forward(*inputs, ops=None)``: outputs, and a cache."""

    @property
    def backward(self) -> Callable[..., tuple[Any, ...]]:
        """``backward(*gradients, cache)``: from the outputs' gradients to the inputs'."""


def draw_params(rng: np.random.Generator, I: int, H: int) -> GRUParams:  # noqa: E741
    """Of the size that `init_params` draws."""
    return GRUParams(*(rng.uniform(-1, 1, s) / np.sqrt(H) for s in ((3 * H, I), (3 * H, H), (3 * H,), (H,))))


def draw_lengths(B: int, T: int) -> list[int]:
    """Unsorted, with the shortest and the longest."""
    return [(0, T, T // 2, 1, T - 1)[b % 5] for b in range(B)]


@dataclass(frozen=True)
class Layer:
    """`gru_forward` and `gru_backward`."""

    reset: Reset
    reverse: bool = False
    lengths: bool = False
    masks: str = ""
    keep_every: int | None = None

    @property
    def group(self) -> str:
        return f'layer, reset="{self.reset}"' + f", {self.masks}" * bool(self.masks)

    @property
    def name(self) -> str:
        kept = "" if self.keep_every is None else f"keep_every={self.keep_every}"
        parts = ("reverse" * self.reverse, "lengths" * self.lengths, kept)
        return ", ".join(part for part in parts if part) or "plain"

    def inputs(self, sizes: Sizes) -> dict[str, Any]:
        B, T, I, H = sizes.B, sizes.T, sizes.I, sizes.H  # noqa: E741
        rng = _rng(self)
        x, h0 = rng.standard_normal((B, T, I)), rng.uniform(-1, 1, (B, H))
        return {"x": x, "h0": h0, "params": draw_params(rng, I, H)}

    def forward(self, x: Array, h0: Array, params: GRUParams, *, ops: Ops | None = None) -> tuple[Any, ...]:
        B, T, _ = x.shape
        H = params.hidden_size
        candidate, update = MASKS[self.masks]
        return gru_forward(
            x,
            h0,
            params,
            lengths=draw_lengths(B, T) if self.lengths else None,
            reverse=self.reverse,
            candidate_mask=dropout_mask((B, H), RATE, seed=SEED, like=x) if candidate else None,
            update_mask=(keep_mask((B, T, H), RATE, seed=SEED, like=x) if update is True else update or None),
            reset=self.reset,
            keep_every=self.keep_every,
            ops=ops,
        )

    def backward(self, dh: Array, dh_last: Array, cache: Any) -> tuple[Any, ...]:
        return gru_backward(dh, cache, dh_last=dh_last)


@dataclass(frozen=True)
class Stack:
    """`gru_stack_forward` and `gru_stack_backward`."""

    reset: Reset
    num_layers: int = 2
    directions: int = 1
    lengths: bool = False
    dropout: bool = False
    keep_every: int | None = None

    @property
    def group(self) -> str:
        text = f'{self.num_layers} layer{"s" * (self.num_layers > 1)}, reset="{self.reset}"'
        return text + ", dropout, recurrent dropout and zoneout" * self.dropout

    @property
    def name(self) -> str:
        kept = "" if self.keep_every is None else f"keep_every={self.keep_every}"
        parts = (f"{self.directions} direction{'s' * (self.directions > 1)}", "lengths" * self.lengths, kept)
        return ", ".join(part for part in parts if part)

    def inputs(self, sizes: Sizes) -> dict[str, Any]:
        B, T, I, H = sizes.B, sizes.T, sizes.I, sizes.H  # noqa: E741
        L, D = self.num_layers, self.directions
        rng = _rng(self)
        x, h0 = rng.standard_normal((B, T, I)), rng.uniform(-1, 1, (L * D, B, H))
        layers = tuple(tuple(draw_params(rng, D * H if layer else I, H) for _ in range(D)) for layer in range(L))
        return {"x": x, "h0": h0, "layers": layers}

    def forward(self, x: Array, h0: Array, layers: Any, *, ops: Ops | None = None) -> tuple[Any, ...]:
        rates: dict[str, Any] = {}
        if self.dropout:
            rates = {"dropout": RATE, "recurrent_dropout": RATE, "zoneout": RATE, "seed": SEED}
        return gru_stack_forward(
            x,
            h0,
            layers,
            lengths=draw_lengths(*x.shape[:2]) if self.lengths else None,
            reset=self.reset,
            keep_every=self.keep_every,
            ops=ops,
            **rates,
        )

    def backward(self, dh: Array, dh_last: Array, cache: Any) -> tuple[Any, ...]:
        return gru_stack_backward(dh, cache, dh_last=dh_last)


@dataclass(frozen=True)
class Cell:
    """`gru_cell_forward` and `gru_cell_backward`."""

    reset: Reset
    name: str = field(default="plain", init=False)

    @property
    def group(self) -> str:
        return f'one step, reset="{self.reset}"'

    def inputs(self, sizes: Sizes) -> dict[str, Any]:
        rng = _rng(self)
        x, h_prev = rng.standard_normal((sizes.B, sizes.I)), rng.uniform(-1, 1, (sizes.B, sizes.H))
        return {"x": x, "h_prev": h_prev, "params": draw_params(rng, sizes.I, sizes.H)}

    def forward(self, x: Array, h_prev: Array, params: GRUParams, *, ops: Ops | None = None) -> tuple[Any, ...]:
        return gru_cell_forward(x, h_prev, params, reset=self.reset, ops=ops)

    def backward(self, dh: Array, cache: Any) -> tuple[Any, ...]:
        return gru_cell_backward(dh, cache)


@dataclass(frozen=True)
class Linear:
    """`linear_forward` and `linear_backward`."""

    steps: bool
    group: str = field(default="linear layer", init=False)

    @property
    def name(self) -> str:
        return "every step" if self.steps else "last states"

    def inputs(self, sizes: Sizes) -> dict[str, Any]:
        rng = _rng(self)
        rows = (sizes.B, sizes.T) if self.steps else (sizes.B,)
        params = LinearParams(rng.standard_normal((sizes.H, sizes.I)), rng.standard_normal(sizes.H))
        return {"x": rng.standard_normal((*rows, sizes.I)), "params": params}

    def forward(self, x: Array, params: LinearParams, *, ops: Ops | None = None) -> tuple[Any, ...]:
        return linear_forward(x, params, ops=ops)

    def backward(self, dy: Array, cache: Any) -> tuple[Any, ...]:
        return linear_backward(dy, cache)


@dataclass(frozen=True)
class Loss:
    """A loss, whose gradient is its cache."""

    kind: str
    reduction: str

    @property
    def group(self) -> str:
        return "losses"

    @property
    def name(self) -> str:
        return f"{self.kind}, {self.reduction}"

    def inputs(self, sizes: Sizes) -> dict[str, Any]:
        shape = (sizes.B, sizes.T, 3) if self.kind == "softmax_cross_entropy" else (sizes.B, sizes.T)
        return {"y": _rng(self).standard_normal(shape)}

    def forward(self, y: Array, *, ops: Ops | None = None) -> tuple[Any, ...]:
        xp = array_namespace(y)

        def draw(draw_one: Any) -> Array:
            return xp.asarray(draw_one(np.random.default_rng(SEED)), device=device(y))

        if self.kind == "mse_loss":
            y_true = xp.astype(draw(lambda rng: rng.standard_normal(y.shape)), y.dtype)
            return mse_loss(y, y_true, reduction=self.reduction, ops=ops)
        labels = draw(lambda rng: rng.integers(0, 3, y.shape[:2]))
        mask = draw(lambda rng: rng.random(y.shape[:2]) < 0.7)
        return softmax_cross_entropy(y, labels, mask=mask, reduction=self.reduction)

    def backward(self, dvalue: Array, dy: Any) -> tuple[Any, ...]:
        return (dvalue * dy,)


def _rng(variant: Any) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(repr(variant).encode()))


def all_variants() -> Iterator[Variant]:
    """Every variant of a layer, and stacks, the cell, the linear layer and the losses."""
    for reset in RESETS:
        yield Cell(reset)
    for reset, masks, reverse, lengths, keep_every in product(RESETS, MASKS, (False, True), (False, True), (None, 2)):
        yield Layer(reset, reverse, lengths, masks, keep_every)
    for reset, dropout, num_layers, directions in product(RESETS, (False, True), (1, 2, 3), (1, 2)):
        for lengths, keep_every in ((False, None), (True, None), (True, 2)):
            yield Stack(reset, num_layers, directions, lengths, dropout, keep_every)
    for steps in (False, True):
        yield Linear(steps)
    for kind, reduction in product(("mse_loss", "softmax_cross_entropy"), ("mean", "sum")):
        yield Loss(kind, reduction)


# --- both passes ------------------------------------------------------------------------------------------------


def results(
    variant: Variant, inputs: dict[str, Any], xp: Namespace, dtype: str, *, ops: Ops | None = None
) -> tuple[dict[str, HostArray], dict[str, HostArray]]:
    """Outputs and gradients of a variant in a namespace, as host arrays."""

    def moved(array: HostArray) -> Array:
        return xp.asarray(array, dtype=getattr(xp, dtype))

    arguments = [map_arrays(moved, value) if isinstance(value, tuple) else moved(value) for value in inputs.values()]
    *outputs, cache = variant.forward(*arguments, ops=ops)
    rng = np.random.default_rng(SEED)
    given = [moved(rng.standard_normal(output.shape).astype(np.float32)) for output in outputs]
    gradients = tuple(variant.backward(*given, cache))
    return (
        {f"output {number}": np.asarray(to_host(output)) for number, output in enumerate(outputs)},
        {name: np.asarray(to_host(gradient)) for name, gradient in named_arrays(gradients)},
    )
