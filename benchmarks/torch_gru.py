"""PyTorch's side of ``train``: ``nn.GRU`` and ``Linear`` on its last step, mean squared error, SGD.

Variants: ``float32`` on the CPU; on CUDA ``ieee`` (float32 throughout) and ``default`` (PyTorch's own setting, which
lets the GRU's products use TF32), each with ``, graph`` captured in a CUDA graph, too.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.worker import LEARNING_RATE, Arrays, Job, Stopwatch, save_gradient
from gru_xp.nn.params import GRUParams, LinearParams
from gru_xp.nn.stack import StackParams


class Network(nn.Module):
    """A GRU and a linear layer on its last step."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.gru = nn.GRU(input_size, hidden_size, batch_first=True)
        self.linear = nn.Linear(hidden_size, 1)

    def forward(self, x: torch.Tensor) -> Any:
        states, _ = self.gru(x)
        return self.linear(states[:, -1])


def weights_to_torch(params: StackParams) -> Arrays:
    """Weights, as `Network` names them, that compute what `params` compute with ``reset="after"``.

    PyTorch stacks r, z, n where we stack z, r, n, and its z is 1 - z: as sigmoid(-a) = 1 - sigmoid(a), the rows of z
    change their sign. It has a second bias for r and z, which is zero here.
    """

    def gates(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        z, r, n = np.split(rows, 3)
        return np.concatenate([r, -z, n])

    gru, linear = params
    H = gru.hidden_size
    bias_hh = np.concatenate([np.zeros(2 * H, gru.bias_hn.dtype), gru.bias_hn])
    return {
        "gru.weight_ih_l0": gates(gru.weight_ih),
        "gru.weight_hh_l0": gates(gru.weight_hh),
        "gru.bias_ih_l0": gates(gru.bias),
        "gru.bias_hh_l0": bias_hh,
        "linear.weight": linear.weight,
        "linear.bias": linear.bias,
    }


def gradient_from_torch(arrays: Arrays) -> StackParams:
    """The inverse of `weights_to_torch`, for weights and gradients alike."""

    def gates(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        r, z, n = np.split(rows, 3)
        return np.concatenate([-z, r, n])

    H = arrays["gru.weight_hh_l0"].shape[1]
    return StackParams(
        GRUParams(
            gates(arrays["gru.weight_ih_l0"]),
            gates(arrays["gru.weight_hh_l0"]),
            gates(arrays["gru.bias_ih_l0"]),
            arrays["gru.bias_hh_l0"][2 * H :],
        ),
        LinearParams(arrays["linear.weight"], arrays["linear.bias"]),
    )


def run_torch(job: Job) -> list[float]:
    """Time the steps; each ends with the cost on the host, as ours does."""
    torch.set_num_threads(job.threads)
    cuda = job.device.startswith("cuda")
    if cuda and not torch.cuda.is_available():
        raise RuntimeError("this PyTorch finds no CUDA device")
    if cuda and job.variant.startswith("ieee"):
        _use_ieee()
    device = torch.device(job.device)
    params, *data = job.problem()
    x, y = (torch.from_numpy(array).to(device) for array in data)
    _, _, H, I = job.shape  # noqa: E741
    network = Network(I, H).to(device)
    weights = {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in weights_to_torch(params).items()}
    network.load_state_dict(weights)
    optimizer = torch.optim.SGD(network.parameters(), lr=LEARNING_RATE)

    def step() -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss: Any = nn.functional.mse_loss(network(x), y)
        loss.backward()
        optimizer.step()
        cost: torch.Tensor = loss.detach()
        return cost

    if job.variant.endswith("graph"):
        step = _captured(step)
        network.load_state_dict(weights)
    cost = step().item()
    gradient = {name: p.grad.cpu().numpy() for name, p in network.named_parameters() if p.grad is not None}
    save_gradient(job, cost, gradient_from_torch(gradient))

    stopwatch = Stopwatch(job)
    while True:
        step().item()
        if stopwatch():
            return stopwatch.times


def _use_ieee() -> None:
    """Keep TF32 out of every product."""
    backends: Any = torch.backends
    if hasattr(backends.cudnn, "rnn"):
        backends.cudnn.rnn.fp32_precision = "ieee"
        backends.cuda.matmul.fp32_precision = "ieee"
    else:  # older releases
        backends.cudnn.allow_tf32 = False
        backends.cuda.matmul.allow_tf32 = False


def _captured(step: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
    """`step` as one CUDA graph: weights, data, gradients and cost stay where they are."""
    cuda: Any = torch.cuda
    stream = cuda.Stream()
    stream.wait_stream(cuda.current_stream())
    with cuda.stream(stream):
        for _ in range(3):
            step()
    cuda.current_stream().wait_stream(stream)
    graph = cuda.CUDAGraph()
    with cuda.graph(graph):
        loss = step()

    def replay() -> torch.Tensor:
        graph.replay()
        return loss

    return replay
