"""Compare with ``keras.layers.GRU`` and ``keras.layers.Bidirectional`` on the PyTorch backend."""

import os
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks.conformance.cases import (
    LIMITS,
    Arrays,
    Case,
    Problem,
    difference,
    differences,
    draw_problem,
    gradients_as_peer,
    our_stack,
)
from benchmarks.conformance.torch_cases import host
from gru_xp.interop.gates import PeerGates
from gru_xp.nn.gru import gru_backward, gru_forward
from gru_xp.nn.params import RESETS

ORDER = "zrn"
MASKED = -3.0
"""Input that a ``Masking`` layer masks."""

DOUBLE = {"reset_after=True, " + name for name in ("no mask", "go_backwards", "Bidirectional")}
"""Variants that Keras computes in float64; in the others, its ``matmul`` rounds to float32."""


def cases() -> list[Case]:
    """Both forms of the reset gate, with and without a mask, in float32, and in float64 where Keras has it."""
    both = {"directions": 2}
    zeros = {"lengths": "zeros"}
    no_h0 = {"with_h0": False}
    variants: dict[str, tuple[Callable[[Problem], dict[str, float]], tuple[dict[str, Any], ...]]] = {
        "no mask": (layer, ({}, no_h0)),
        "mask": (layer, (zeros, zeros | no_h0, {"lengths": "random"})),
        "mask, zero_output_for_mask": (partial(layer, zero_output_for_mask=True), (zeros, zeros | no_h0)),
        "Masking layer": (masking_layer, (no_h0 | {"lengths": "random"}, no_h0 | zeros)),
        "mask with gaps, as update_mask": (any_mask, (no_h0, no_h0)),
        "mask, return_sequences=False": (last_output, (zeros, {"lengths": "random"})),
        "go_backwards": (partial(layer, backwards=True), ({}, no_h0)),
        "go_backwards, mask": (partial(layer, backwards=True), (zeros, {"lengths": "random"})),
        "Bidirectional": (stack, (both, both | no_h0)),
        "Bidirectional, mask": (stack, (both | zeros, both | zeros | no_h0, both | {"lengths": "equal"})),
        "2 layers, mask": (stack, ({"num_layers": 2} | zeros, {"num_layers": 2} | zeros | no_h0)),
        "2 layers, Bidirectional, mask": (stack, ({"num_layers": 2} | both | zeros,) * 2),
    }
    found = []
    for reset in RESETS:
        for name, (compare, draws) in variants.items():
            variant = f"reset_after={reset == 'after'}, {name}"
            for dtype in ("float64", "float32") if variant in DOUBLE else ("float32",):
                for number, sizes in enumerate(draws):
                    seed = f"keras {variant} {number}"
                    draw = partial(draw_problem, seed, order=ORDER, reset=reset, dtype=dtype, **sizes)
                    found.append(Case(variant, str(number), dtype, LIMITS[dtype], partial(_compare, compare, draw)))
    return found


def _compare(compare: Callable[[Problem], dict[str, float]], draw: Callable[[], Problem]) -> dict[str, float]:
    return compare(draw())


def import_keras() -> Any:
    """Keras on PyTorch.

    Raises
    ------
    RuntimeError
        It was imported before, on another backend.
    """
    os.environ["KERAS_BACKEND"] = "torch"  # read when Keras is imported first
    import keras

    if keras.backend.backend() != "torch":
        raise RuntimeError(f"Keras runs on {keras.backend.backend()}; set KERAS_BACKEND=torch before it is imported")
    return keras


# --- Keras' side ------------------------------------------------------------------------------------------------


def keras_layer(problem: Problem, number: int = 0, **options: Any) -> Any:
    """A layer with one of a problem's layers' weights."""
    keras = import_keras()
    gates = problem.gates[number]
    dtype, input_size = str(problem.x.dtype), gates[0].weight_ih.shape[1]
    settings = {"return_sequences": True, "return_state": True} | options
    built = keras.layers.GRU(gates[0].weight_hh.shape[1], reset_after=problem.reset == "after", dtype=dtype, **settings)
    if len(gates) == 2:
        built = keras.layers.Bidirectional(built, dtype=dtype)
    built.build((None, None, input_size))
    built.set_weights([array for part in gates for array in _keras_arrays(part, problem.reset)])
    return built


def _keras_arrays(gates: PeerGates, reset: str) -> list[Any]:
    biases = np.stack([gates.bias_ih, gates.bias_hh]) if reset == "after" else gates.bias_ih + gates.bias_hh
    return [gates.weight_ih.T, gates.weight_hh.T, biases]


def _gradients(layers: list[Any], reset: str) -> dict[str, Any]:
    """Gradients of the weights, named and shaped as `gradients_as_peer` does."""
    found: dict[str, Any] = {}
    for number, its_layer in enumerate(layers):
        weights = [weight.value.grad for weight in its_layer.trainable_weights]
        for direction in range(len(weights) // 3):
            kernel, recurrent_kernel, bias = weights[3 * direction : 3 * direction + 3]
            first, second = bias if reset == "after" else (bias, bias)  # the one bias is the sum of our two
            named = zip(PeerGates._fields, (kernel.T, recurrent_kernel.T, first, second), strict=True)
            found |= {f"{name}[{number}][{direction}]": array for name, array in named}
    return found


def _leaf(array: Any) -> Any:
    import torch

    return torch.tensor(array, requires_grad=True)


def keras_stack(
    problem: Problem, layers: list[Any], mask: Any, *, flip: bool = False, keep_padding: bool = False
) -> tuple[Arrays, Arrays]:
    """Outputs and gradients of stacked layers; outputs at masked steps count as 0."""
    import torch

    D = problem.dh.shape[2] // problem.dh_last.shape[2]
    x, h0 = _leaf(problem.x), None if problem.h0 is None else _leaf(problem.h0)
    h, lasts = x, []
    for number, its_layer in enumerate(layers):
        states = None if h0 is None else list(h0[D * number : D * (number + 1)])
        h, *last = its_layer(h, mask=None if mask is None else torch.tensor(mask), initial_state=states)
        lasts += last
    if flip:
        h = torch.flip(h, [1])
    if not keep_padding:
        h = h * torch.tensor(problem.inside[..., None].astype(problem.x.dtype))
    h_last = torch.stack(lasts)
    (torch.sum(h * torch.tensor(problem.dh)) + torch.sum(h_last * torch.tensor(problem.dh_last))).backward()
    gradients = {"x": x.grad, **({} if h0 is None else {"h0": h0.grad}), **_gradients(layers, problem.reset)}
    return host({"h": h, "h_last": h_last}), host(gradients)


def _mask(problem: Problem) -> Any:
    return None if problem.lengths is None else problem.inside


# --- comparisons ------------------------------------------------------------------------------------------------


def our_layer(problem: Problem, dh: Any = None, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """`gru_forward` and `gru_backward`, in the shapes of a stack."""
    h0 = None if problem.h0 is None else problem.h0[0]
    h, h_last, cache = gru_forward(problem.x, h0, problem.params(), **options)
    assert cache is not None
    dx, dh0, dparams = gru_backward(problem.dh if dh is None else dh, cache, dh_last=problem.dh_last[0])
    gradients = {"x": dx, **({} if h0 is None else {"h0": dh0[None]}), **gradients_as_peer(((dparams,),), problem)}
    return {"h": h, "h_last": h_last[None]}, gradients


def layer(problem: Problem, *, backwards: bool = False, zero_output_for_mask: bool = False) -> dict[str, float]:
    """One layer; outputs of ``go_backwards`` are in reverse order."""
    its_layer = keras_layer(problem, go_backwards=backwards, zero_output_for_mask=zero_output_for_mask)
    theirs = keras_stack(problem, [its_layer], _mask(problem), flip=backwards, keep_padding=zero_output_for_mask)
    return differences(our_layer(problem, lengths=problem.lengths, reverse=backwards), theirs)


def stack(problem: Problem) -> dict[str, float]:
    """Stacked layers, in one direction or both."""
    layers = [keras_layer(problem, number) for number in range(len(problem.layers))]
    return differences(our_stack(problem), keras_stack(problem, layers, _mask(problem)))


def masking_layer(problem: Problem) -> dict[str, float]:
    """A ``Masking`` layer makes the mask from x; Keras ignores that mask if an initial state is given."""
    keras = import_keras()
    problem = problem._replace(x=np.where(problem.inside[..., None], problem.x, problem.x.dtype.type(MASKED)))
    masking, gru = keras.layers.Masking(MASKED, dtype=str(problem.x.dtype)), keras_layer(problem)

    def both(x: Any, **_: Any) -> Any:
        return gru(masking(x))

    both.trainable_weights = gru.trainable_weights  # type: ignore[attr-defined]
    return differences(our_layer(problem, lengths=problem.lengths), keras_stack(problem, [both], None))


def any_mask(problem: Problem) -> dict[str, float]:
    """A mask with gaps, which keep the state and repeat it as the output: zoneout of every element."""
    rng = np.random.default_rng(zlib.crc32(problem.x.tobytes()))
    mask = rng.random(problem.x.shape[:2]) < 0.6
    updates = np.repeat(mask[..., None].astype(problem.x.dtype), problem.dh.shape[2], axis=2)
    theirs = keras_stack(problem, [keras_layer(problem)], mask, keep_padding=True)
    return differences(our_layer(problem, update_mask=updates), theirs)


def last_output(problem: Problem) -> dict[str, float]:
    """The output alone: the final state, or 0 for a sequence of length 0."""
    import torch

    its_layer = keras_layer(problem, return_sequences=False, return_state=False)
    assert problem.h0 is not None
    assert problem.lengths is not None
    x, h0 = _leaf(problem.x), _leaf(problem.h0)
    y = its_layer(x, mask=torch.tensor(_mask(problem)), initial_state=[h0[0]])
    torch.sum(y * torch.tensor(problem.dh_last[0])).backward()
    gradients = {"x": x.grad, "h0": h0.grad, **_gradients([its_layer], problem.reset)}

    empty = np.equal(problem.lengths, 0)[:, None]
    seen = np.where(empty, np.zeros_like(problem.dh_last), problem.dh_last)
    ours, our_gradients = our_layer(problem._replace(dh_last=seen), np.zeros_like(problem.dh), lengths=problem.lengths)
    our_y = np.where(empty, np.zeros_like(ours["h_last"][0]), ours["h_last"][0])
    return {
        "outputs": difference({"y": our_y}, host({"y": y})),
        "gradients": difference(our_gradients, host(gradients)),
    }
