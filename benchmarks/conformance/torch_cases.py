"""Compare stacked GRU layers with ``torch.nn.GRU``: packed sequences, gradients from autograd."""

from functools import partial
from itertools import product
from typing import Any

import numpy as np

from benchmarks.conformance.cases import LIMITS, Arrays, Case, Problem, differences, draw_problem, our_stack
from gru_xp.interop.gates import PeerGates

ORDER = "rzn"
SUFFIXES = ("", "_reverse")


def cases() -> list[Case]:
    """All depths and directions, with and without lengths and initial states, in both precisions."""
    found = []
    for num_layers, directions, lengths, dtype in product((1, 2, 3), (1, 2), (None, "random"), LIMITS):
        variant = f"{num_layers} layer{'s' * (num_layers > 1)}, {('one direction', 'both directions')[directions - 1]}"
        variant += ", lengths" if lengths else ""
        for with_h0, number in product((False, True), range(3)):
            name = f"{'h0' if with_h0 else 'no h0'} {number}"
            draw = partial(
                draw_problem,
                f"torch {variant} {name}",
                order=ORDER,
                dtype=dtype,
                num_layers=num_layers,
                directions=directions,
                lengths=lengths,
                with_h0=with_h0,
            )
            found.append(Case(variant, name, dtype, LIMITS[dtype], partial(compare_stacks, draw)))
    return found


def compare_stacks(draw: Any) -> dict[str, float]:
    """Compare our stack and PyTorch's on a problem."""
    problem = draw()
    return differences(our_stack(problem), torch_stack(problem))


def torch_stack(problem: Problem, *, dropout: float = 0.0, training: bool = True) -> tuple[Arrays, Arrays]:
    """Outputs and gradients of ``torch.nn.GRU``."""
    import torch

    gru = torch_gru(problem, dropout=dropout).train(training)
    x = torch.tensor(problem.x, requires_grad=True)
    h0 = None if problem.h0 is None else torch.tensor(problem.h0, requires_grad=True)
    h, h_last = run_gru(gru, x, h0, problem.lengths)
    (torch.sum(h * torch.tensor(problem.dh)) + torch.sum(h_last * torch.tensor(problem.dh_last))).backward()
    gradients = {"x": x.grad, **({} if h0 is None else {"h0": h0.grad}), **parameter_gradients(gru)}
    return host({"h": h, "h_last": h_last}), host(gradients)


def run_gru(gru: Any, x: Any, h0: Any, lengths: Any) -> tuple[Any, Any]:
    """States of all steps, zeros after a sequence's end, and the last ones."""
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    if lengths is None:
        return gru(x, h0)  # type: ignore[no-any-return]
    import torch

    packed = pack_padded_sequence(x, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
    h, h_last = gru(packed, h0)
    h, _ = pad_packed_sequence(h, batch_first=True, total_length=x.shape[1])
    return h, h_last


def torch_gru(problem: Problem, layers: slice = slice(None), *, dropout: float = 0.0) -> Any:
    """``torch.nn.GRU`` with the weights of some of a problem's layers."""
    import torch

    gates = problem.gates[layers]
    H = gates[0][0].weight_hh.shape[1]
    gru = torch.nn.GRU(
        gates[0][0].weight_ih.shape[1],
        H,
        num_layers=len(gates),
        bidirectional=len(gates[0]) == 2,
        dropout=dropout,
        batch_first=True,
        dtype=getattr(torch, str(problem.x.dtype)),
    )
    gru.load_state_dict(
        {
            f"{name}_l{number}{SUFFIXES[direction]}": torch.tensor(array)
            for number, layer in enumerate(gates)
            for direction, part in enumerate(layer)
            for name, array in zip(PeerGates._fields, part, strict=True)
        }
    )
    return gru


def parameter_gradients(gru: Any, first_layer: int = 0) -> dict[str, Any]:
    """Gradients of all weights and biases, named as `gradients_as_peer` does."""
    return {
        f"{name}[{first_layer + number}][{direction}]": getattr(gru, f"{name}_l{number}{SUFFIXES[direction]}").grad
        for number in range(gru.num_layers)
        for direction in range(1 + gru.bidirectional)
        for name in PeerGates._fields
    }


def host(tensors: Arrays) -> dict[str, np.ndarray[Any, Any]]:
    """As arrays of NumPy."""
    return {name: tensor.detach().numpy() for name, tensor in tensors.items()}
