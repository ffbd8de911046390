"""Compare the losses and the linear layer with PyTorch's."""

import zlib
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from benchmarks.conformance.cases import LIMITS, Case, differences
from benchmarks.conformance.torch_cases import host
from gru_xp.nn.linear import linear_backward, linear_forward
from gru_xp.nn.losses import mse_loss, softmax_cross_entropy
from gru_xp.nn.params import LinearParams

CASES = 3
"""Cases of each variant and precision."""

LEFT_OUT = -100
"""PyTorch's label of an ignored target."""


def cases() -> list[Case]:
    """`CASES` of each variant and precision."""
    found = []

    def add(variant: str, compare: Callable[[np.random.Generator, str], dict[str, float]]) -> None:
        for dtype, number in product(LIMITS, range(CASES)):
            measure = partial(_measure, compare, f"{variant} {number}", dtype)
            found.append(Case(variant, str(number), dtype, LIMITS[dtype], measure))

    for steps, masked, reduction in product((False, True), (False, True), ("mean", "sum")):
        variant = f"softmax_cross_entropy, one label per {'step' if steps else 'sequence'}, {reduction}"
        add(variant + (", mask" if masked else ""), partial(cross_entropy, steps, masked, reduction))
    for reduction in ("mean", "sum"):
        add(f"mse_loss, {reduction}", partial(squared_error, reduction))
    for steps in (False, True):
        add(f"linear layer, {'every step' if steps else 'final states'}", partial(linear, steps))
    return found


def _measure(
    compare: Callable[[np.random.Generator, str], dict[str, float]], name: str, dtype: str
) -> dict[str, float]:
    return compare(np.random.default_rng(zlib.crc32(name.encode())), dtype)


def cross_entropy(steps: bool, masked: bool, reduction: str, rng: np.random.Generator, dtype: str) -> dict[str, float]:
    """Compare with ``cross_entropy``; some logits are so large that a naive softmax overflows or loses digits."""
    import torch

    B, T, C = (int(rng.integers(2, 9)) for _ in range(3))
    shape = (B, T) if steps else (B,)
    size = float(rng.choice([1.0, 10.0, 1000.0]))
    logits = (size * rng.standard_normal((*shape, C))).astype(dtype)
    labels = rng.integers(0, C, shape)
    mask = None
    if masked:
        mask = rng.random(shape) < 0.6
        mask.flat[0] = True
    value, dlogits = softmax_cross_entropy(logits, labels, mask=mask, reduction=reduction)

    their_labels = labels if mask is None else np.where(mask, labels, LEFT_OUT)
    theirs = torch.tensor(logits, requires_grad=True)
    loss = torch.nn.functional.cross_entropy(
        theirs.reshape(-1, C), torch.tensor(their_labels).reshape(-1), ignore_index=LEFT_OUT, reduction=reduction
    )
    loss.backward()
    return differences(({"value": value}, {"logits": dlogits}), (host({"value": loss}), host({"logits": theirs.grad})))


def squared_error(reduction: str, rng: np.random.Generator, dtype: str) -> dict[str, float]:
    """Compare with ``mse_loss``; ours averages over the outputs in both reductions."""
    import torch

    shape = tuple(int(rng.integers(1, 9)) for _ in range(2))
    y_pred, y_true = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    value, dpred = mse_loss(y_pred, y_true, reduction=reduction)
    theirs = torch.tensor(y_pred, requires_grad=True)
    loss = torch.nn.functional.mse_loss(theirs, torch.tensor(y_true), reduction=reduction)
    if reduction == "sum":
        loss = loss / shape[1]
    loss.backward()
    return differences(({"value": value}, {"y_pred": dpred}), (host({"value": loss}), host({"y_pred": theirs.grad})))


def linear(steps: bool, rng: np.random.Generator, dtype: str) -> dict[str, float]:
    """Compare with ``linear``."""
    import torch

    B, T, I, O = (int(rng.integers(1, 9)) for _ in range(4))  # noqa: E741
    rows = (B, T) if steps else (B,)
    arrays: dict[str, Any] = {
        name: rng.standard_normal(shape).astype(dtype)
        for name, shape in {"x": (*rows, I), "weight": (O, I), "bias": (O,)}.items()
    }
    dy = rng.standard_normal((*rows, O)).astype(dtype)
    y, cache = linear_forward(arrays["x"], LinearParams(arrays["weight"], arrays["bias"]))
    dx, dparams = linear_backward(dy, cache)
    theirs = {name: torch.tensor(array, requires_grad=True) for name, array in arrays.items()}
    y_torch = torch.nn.functional.linear(theirs["x"], theirs["weight"], theirs["bias"])
    torch.sum(y_torch * torch.tensor(dy)).backward()
    gradients = host({name: tensor.grad for name, tensor in theirs.items()})
    return differences(({"y": y}, {"x": dx, **dparams._asdict()}), (host({"y": y_torch}), gradients))
