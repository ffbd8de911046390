"""Compare dropout, zoneout, single steps, truncated BPTT and whole networks with PyTorch."""

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
from benchmarks.conformance.torch_cases import ORDER, host, parameter_gradients, run_gru, torch_gru, torch_stack
from gru_xp.interop.gates import PeerGates
from gru_xp.nn.cell import gru_cell_backward, gru_cell_forward
from gru_xp.nn.dropout import DropoutRates, keep_mask
from gru_xp.nn.gru import gru_backward, gru_forward
from gru_xp.nn.inference import GRUInference
from gru_xp.nn.losses import mse_loss
from gru_xp.nn.network import NetworkParams, network_backward, network_forward
from gru_xp.nn.params import LinearParams
from gru_xp.nn.stack import draw_masks, gru_stack_step

CASES = 3
"""Cases of each variant and precision."""

RATE, SEED = 0.4, 5


def cases() -> list[Case]:
    """`CASES` of each variant and precision."""
    deep = {"num_layers": 3, "directions": 2}
    lengths = {"lengths": "random"}
    variants: list[tuple[str, Callable[[Problem], dict[str, float]], dict[str, Any]]] = [
        ("3 layers, dropout of rate 0, in training", without_dropout, deep | lengths),
        ("3 layers, dropout, in prediction", predicted_dropout, deep | lengths),
        ("3 layers, dropout between layers, same masks in both", masked_dropout, deep),
        ("zoneout, same masks in both, GRUCell", zoneout, lengths),
        ("zoneout, in prediction, GRUCell", mean_zoneout, lengths),
        ("one step, GRUCell", one_step, {}),
        ("step by step, 2 layers", step_by_step, {"num_layers": 2}),
        ("GRUInference, whole sequences and step by step", prepared, {}),
        (
            "every third state stored, 2 layers, both directions, lengths",
            kept_states,
            deep | lengths | {"num_layers": 2},
        ),
        ("chunks with carried state", chunks, {}),
        ("whole network, 2 layers, both directions, lengths", network, deep | lengths | {"num_layers": 2}),
    ]
    found = []
    for variant, compare, sizes in variants:
        for dtype, limit in LIMITS.items():
            for number in range(CASES):
                draw = partial(draw_problem, f"torch {variant} {number}", order=ORDER, dtype=dtype, **sizes)
                found.append(Case(variant, str(number), dtype, limit, partial(_compare, compare, draw)))
    return found


def _compare(compare: Callable[[Problem], dict[str, float]], draw: Callable[[], Problem]) -> dict[str, float]:
    return compare(draw())


# --- dropout and zoneout ----------------------------------------------------------------------------------------


def without_dropout(problem: Problem) -> dict[str, float]:
    """Both in training mode, with dropout at rate 0."""
    return differences(our_stack(problem, dropout=0.0, seed=SEED), torch_stack(problem, dropout=0.0))


def predicted_dropout(problem: Problem) -> dict[str, float]:
    """Both in prediction, where dropout has no effect."""
    return differences(our_stack(problem, dropout=RATE), torch_stack(problem, dropout=RATE, training=False))


def masked_dropout(problem: Problem) -> dict[str, float]:
    """PyTorch's layers one by one, with our masks between them."""
    import torch

    L, D = len(problem.layers), len(problem.layers[0])
    masks = draw_masks(problem.layers, problem.x, DropoutRates(between=RATE), SEED).between
    grus = [torch_gru(problem, slice(number, number + 1)) for number in range(L)]
    x, h0 = (torch.tensor(array, requires_grad=True) for array in (problem.x, problem.h0))
    h, lasts = x, []
    for number, (gru, mask) in enumerate(zip(grus, masks, strict=True)):
        h, last = gru(h if mask is None else h * torch.tensor(mask), h0[number * D : (number + 1) * D])
        lasts.append(last)
    h_last = torch.cat(lasts)
    _weighted(problem, h, h_last).backward()
    gradients = {"x": x.grad, "h0": h0.grad}
    for number, gru in enumerate(grus):
        gradients |= parameter_gradients(gru, number)
    theirs = host({"h": h, "h_last": h_last}), host(gradients)
    return differences(our_stack(problem, dropout=RATE, seed=SEED), theirs)


def zoneout(problem: Problem) -> dict[str, float]:
    """Apply our zoneout mask around ``torch.nn.GRUCell``."""
    mask = keep_mask(problem.dh.shape, RATE, seed=SEED, like=problem.x)
    return _zoneout(problem, mask, mask)


def mean_zoneout(problem: Problem) -> dict[str, float]:
    """The mean of the mask instead of a mask."""
    return _zoneout(problem, 1.0 - RATE, np.full_like(problem.dh, 1.0 - RATE))


def _zoneout(problem: Problem, ours: Any, theirs: Any) -> dict[str, float]:
    import torch

    assert problem.h0 is not None
    cell = _cell(problem)
    x, h0 = (torch.tensor(array, requires_grad=True) for array in (problem.x, problem.h0))
    inside = torch.tensor(problem.inside[..., None].astype(problem.x.dtype))
    h, hs = h0[0], []
    for t in range(x.shape[1]):
        mask = torch.tensor(theirs[:, t]) * inside[:, t]
        h = mask * cell(x[:, t], h) + (1.0 - mask) * h
        hs.append(h)
    all_h = torch.stack(hs, 1) * inside
    _weighted(problem, all_h, h[None]).backward()
    gradients = {"x": x.grad, "h0": h0.grad, **_cell_gradients(cell)}
    return differences(
        _our_layer(problem, lengths=problem.lengths, update_mask=ours),
        (host({"h": all_h, "h_last": h[None]}), host(gradients)),
    )


def _our_layer(problem: Problem, **options: Any) -> tuple[Arrays, Arrays]:
    """`gru_forward` and `gru_backward`, in the shapes of a stack."""
    assert problem.h0 is not None
    h, h_last, cache = gru_forward(problem.x, problem.h0[0], problem.params(), **options)
    assert cache is not None
    dx, dh0, dparams = gru_backward(problem.dh, cache, dh_last=problem.dh_last[0])
    gradients = {"x": dx, "h0": dh0[None], **gradients_as_peer(((dparams,),), problem)}
    return {"h": h, "h_last": h_last[None]}, gradients


def _weighted(problem: Problem, h: Any, h_last: Any) -> Any:
    """The scalar to differentiate."""
    import torch

    return torch.sum(h * torch.tensor(problem.dh)) + torch.sum(h_last * torch.tensor(problem.dh_last))


# --- steps ------------------------------------------------------------------------------------------------------


def _cell(problem: Problem) -> Any:
    import torch

    gates = problem.gates[0][0]
    I, H = gates.weight_ih.shape[1], gates.weight_hh.shape[1]  # noqa: E741
    cell = torch.nn.GRUCell(I, H, dtype=getattr(torch, str(problem.x.dtype)))
    cell.load_state_dict({name: torch.tensor(array) for name, array in gates._asdict().items()})
    return cell


def _cell_gradients(cell: Any) -> dict[str, Any]:
    return {f"{name}[0][0]": getattr(cell, name).grad for name in PeerGates._fields}


def one_step(problem: Problem) -> dict[str, float]:
    """`gru_cell_forward` and `gru_cell_backward`."""
    import torch

    assert problem.h0 is not None
    ours, cache = gru_cell_forward(problem.x[:, 0], problem.h0[0], problem.params())
    dx, dh_prev, dparams = gru_cell_backward(problem.dh_last[0], cache)
    cell = _cell(problem)
    x, h_prev = (torch.tensor(array, requires_grad=True) for array in (problem.x[:, 0], problem.h0[0]))
    theirs = cell(x, h_prev)
    torch.sum(theirs * torch.tensor(problem.dh_last[0])).backward()
    return differences(
        ({"h": ours}, {"x": dx, "h_prev": dh_prev, **gradients_as_peer(((dparams,),), problem)}),
        (host({"h": theirs}), host({"x": x.grad, "h_prev": h_prev.grad, **_cell_gradients(cell)})),
    )


def step_by_step(problem: Problem) -> dict[str, float]:
    """Compare `gru_stack_step` over time with whole sequences in PyTorch."""
    h, states = problem.h0, []
    for t in range(problem.x.shape[1]):
        h = gru_stack_step(problem.x[:, t], h, problem.layers)
        assert h is not None
        states.append(h[-1])
    outputs, _ = torch_stack(problem)
    return {"outputs": difference({"h": np.stack(states, 1), "h_last": h}, outputs)}


def prepared(problem: Problem) -> dict[str, float]:
    """Compare `GRUInference`, on whole sequences and step by step, with whole sequences in PyTorch."""
    assert problem.h0 is not None
    layer = GRUInference(problem.params())
    h, h_last = layer(problem.x, problem.h0[0])
    state, states = problem.h0[0], []
    for t in range(problem.x.shape[1]):
        state = layer.step(problem.x[:, t], state).copy()
        states.append(state)
    outputs, _ = torch_stack(problem)
    whole = difference({"h": h, "h_last": h_last[None]}, outputs)
    return {"outputs": max(whole, difference({"h": np.stack(states, 1), "h_last": state[None]}, outputs))}


def kept_states(problem: Problem) -> dict[str, float]:
    """Activation checkpointing: the backward pass recomputes the other states."""
    return differences(our_stack(problem, keep_every=3), torch_stack(problem))


def chunks(problem: Problem) -> dict[str, float]:
    """Chunks of two steps; gradients stop where a chunk begins, as with PyTorch's ``detach``."""
    import torch

    assert problem.h0 is not None
    gru = torch_gru(problem)
    ours, theirs = problem.h0[0], torch.tensor(problem.h0)
    our_parts: dict[str, Any] = {}
    their_parts: dict[str, Any] = {}
    total: Any = None
    for start in range(0, problem.x.shape[1], 2):
        steps = slice(start, start + 2)
        h, ours, cache = gru_forward(problem.x[:, steps], ours, problem.params())
        assert cache is not None
        dx, _, dparams = gru_backward(problem.dh[:, steps], cache)
        total = dparams if total is None else type(dparams)(*(a + b for a, b in zip(total, dparams, strict=True)))
        x = torch.tensor(problem.x[:, steps], requires_grad=True)
        h_torch, theirs = gru(x, theirs.detach())
        torch.sum(h_torch * torch.tensor(problem.dh[:, steps])).backward()
        our_parts |= {f"h at {start}": h, f"x at {start}": dx}
        their_parts |= host({f"h at {start}": h_torch, f"x at {start}": x.grad})
    our_gradients = gradients_as_peer(((total,),), problem)
    found = differences(
        ({"h_last": ours[None]}, our_gradients), (host({"h_last": theirs}), host(parameter_gradients(gru)))
    )

    def of(parts: dict[str, Any], what: str) -> dict[str, Any]:
        return {name: part for name, part in parts.items() if name.startswith(what)}

    return {
        "outputs": max(found["outputs"], difference(of(our_parts, "h"), of(their_parts, "h"))),
        "gradients": max(found["gradients"], difference(of(our_parts, "x"), of(their_parts, "x"))),
    }


# --- the whole network ------------------------------------------------------------------------------------------


def network(problem: Problem) -> dict[str, float]:
    """`network_forward`, squared error and `network_backward`."""
    import torch

    problem = problem._replace(h0=None)
    D, (_, B, H) = len(problem.layers[0]), problem.dh_last.shape
    rng = np.random.default_rng(SEED)
    weight, bias, y_true = (rng.standard_normal(s).astype(problem.x.dtype) for s in ((2, D * H), (2,), (B, 2)))

    params = NetworkParams(problem.layers, LinearParams(weight, bias))
    y, cache = network_forward(problem.x, params, lengths=problem.lengths)
    assert cache is not None
    value, dy = mse_loss(y, y_true)
    dx, dparams = network_backward(dy, cache)

    gru, linear = torch_gru(problem), torch.nn.Linear(D * H, 2, dtype=getattr(torch, str(problem.x.dtype)))
    linear.load_state_dict({"weight": torch.tensor(weight), "bias": torch.tensor(bias)})
    x = torch.tensor(problem.x, requires_grad=True)
    _, h_last = run_gru(gru, x, None, problem.lengths)
    y_torch = linear(torch.cat(list(h_last[-D:]), 1))
    loss = torch.nn.functional.mse_loss(y_torch, torch.tensor(y_true))
    loss.backward()
    ours = {"x": dx, **gradients_as_peer(dparams.gru, problem), **dparams.linear._asdict()}
    theirs = {"x": x.grad, **parameter_gradients(gru), "weight": linear.weight.grad, "bias": linear.bias.grad}
    return differences(({"y": y, "value": value}, ours), (host({"y": y_torch, "value": loss}), host(theirs)))
