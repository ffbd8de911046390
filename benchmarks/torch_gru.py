"""PyTorch's side of every comparison: ``nn.GRU`` and ``Linear`` on its last step, mean squared error, SGD.

Variants of ``train``: ``float32`` on the CPU; on CUDA ``ieee`` (float32 throughout) and ``tf32`` (products of numbers
with fewer bits), each with ``, graph`` captured in a CUDA graph, too. ``forward`` is ``nn.GRU``, ``stream`` is
``nn.GRUCell``, both in inference mode. ``step`` and ``cell`` are ``nn.GRUCell`` under ``no_grad``, or recording what
autograd needs.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks import stacks
from benchmarks.job import LEARNING_RATE, Arrays, Job, Measurement, PeakMemory, Stopwatch, time_calls
from benchmarks.own_gru import pipelined_seconds
from gru_xp.interop.gates import to_peer
from gru_xp.interop.torch import to_torch
from gru_xp.nn.network import NetworkParams
from gru_xp.nn.params import GRUParams, LinearParams, named_arrays


class Network(nn.Module):
    """A GRU and a linear layer on its last step."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.gru = nn.GRU(input_size, hidden_size, batch_first=True)
        self.linear = nn.Linear(hidden_size, 1)

    def forward(self, x: torch.Tensor) -> Any:
        states, _ = self.gru(x)
        return self.linear(states[:, -1])


def gru_to_torch(params: GRUParams) -> Arrays:
    """Weights, as ``nn.GRUCell`` names them, that compute what `params`, of ``reset="after"``, do."""
    return to_peer(params, "rzn")._asdict()


def weights_to_torch(params: NetworkParams) -> Arrays:
    """The same for the whole network, as `Network` names its weights."""
    ((gru,),), linear, _ = params
    return {
        **{f"gru.{name}_l0": array for name, array in gru_to_torch(gru).items()},
        "linear.weight": linear.weight,
        "linear.bias": linear.bias,
    }


def gradient_from_torch(arrays: Arrays) -> NetworkParams:
    """The inverse of `weights_to_torch`, for weights and gradients alike.

    Of gradients, those of PyTorch's second biases of r and z are left out: they are those of the first once more.
    """

    gru = _gru_from_torch({name: arrays[f"gru.{name}_l0"] for name in _WEIGHTS})
    return NetworkParams(((gru,),), LinearParams(arrays["linear.weight"], arrays["linear.bias"]))


_WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def _gru_from_torch(arrays: Arrays) -> GRUParams:
    def gates(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        r, z, n = np.split(rows, 3)
        return np.concatenate([-z, r, n])

    weight_ih, weight_hh, bias_ih, bias_hh = (arrays[name] for name in _WEIGHTS)
    return GRUParams(gates(weight_ih), gates(weight_hh), gates(bias_ih), bias_hh[2 * weight_hh.shape[1] :])


def measure(job: Job) -> Measurement:
    """Do the job."""
    torch.set_num_threads(job.threads)
    if job.device.startswith("cuda") and not torch.cuda.is_available():
        raise RuntimeError("this PyTorch finds no CUDA device")
    if job.task == "train":
        return _measure_training(job)
    if job.task in ("variant", "layer"):
        return _measure_variant(job)
    if job.task in ("step", "cell"):
        with torch.set_grad_enabled("no_grad" not in job.variant):
            return _measure_stream(job)
    with torch.inference_mode():
        return _measure_forward(job) if job.task == "forward" else _measure_stream(job)


def _tensors(arrays: Arrays) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}


# --- training ---------------------------------------------------------------------------------------------------


def _measure_training(job: Job) -> Measurement:
    """Each timed step ends with the cost on the host, as ours does."""
    if job.device.startswith("cuda"):
        _set_precision(job.variant.partition(",")[0])
    device = torch.device(job.device)
    params, *data = job.problem()
    x, y = (torch.from_numpy(array).to(device) for array in data)
    _, _, H, I = job.shape  # noqa: E741
    network = Network(I, H).to(device)
    weights = _tensors(weights_to_torch(params))
    network.load_state_dict(weights)
    optimizer = torch.optim.SGD(network.parameters(), lr=LEARNING_RATE)

    def step() -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss: Any = nn.functional.mse_loss(network(x), y)
        loss.backward()
        optimizer.step()
        cost: torch.Tensor = loss.detach()
        return cost

    memory = PeakMemory()
    if job.variant.endswith("graph"):
        step = _captured(step)
    stopwatch = Stopwatch(job)
    while True:
        step().item()
        if stopwatch():
            break
    peak = memory.growth()

    if job.arrays_file is not None:
        network.load_state_dict(weights)
        cost = step().item()
        gradient = {name: p.grad.cpu().numpy() for name, p in network.named_parameters() if p.grad is not None}
        job.save({"cost": np.asarray(cost), **dict(named_arrays(gradient_from_torch(gradient)))})
    pipelined = None
    if job.pipelined_steps:
        last = torch.zeros(())

        def step_without_a_wait() -> None:
            nonlocal last
            last = step()

        pipelined = pipelined_seconds(job, step_without_a_wait, lambda: last.item())
    return Measurement(stopwatch.times, peak, pipelined)


def _set_precision(precision: str) -> None:
    """``"ieee"`` keeps TF32 out of every product, ``"tf32"`` allows it in all of them."""
    backends: Any = torch.backends
    if hasattr(backends.cudnn, "rnn"):
        backends.cudnn.rnn.fp32_precision = precision
        backends.cuda.matmul.fp32_precision = precision
    else:  # older releases
        backends.cudnn.allow_tf32 = precision == "tf32"
        backends.cuda.matmul.allow_tf32 = precision == "tf32"


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


# --- variants ---------------------------------------------------------------------------------------------------


def _measure_variant(job: Job) -> Measurement:
    """Sequences that end early are packed, in any order, and padded again, as `gru_forward` takes and gives them."""
    layers, host_x, lengths, host_dh, _ = stacks.problem(job)
    _, T, H, I = job.shape  # noqa: E741
    gru: Any = nn.GRU(I, H, len(layers), batch_first=True, bidirectional=len(layers[0]) == 2)
    gru.load_state_dict(to_torch(layers))
    x, dh = torch.from_numpy(host_x).requires_grad_(), torch.from_numpy(host_dh)
    counts = None if lengths is None else torch.from_numpy(lengths)

    def forward_and_back() -> tuple[torch.Tensor, torch.Tensor]:
        x.grad = None
        gru.zero_grad(set_to_none=True)
        if counts is None:
            h, h_last = gru(x)
        else:
            packed = nn.utils.rnn.pack_padded_sequence(x, counts, batch_first=True, enforce_sorted=False)
            states, h_last = gru(packed)
            h, _ = nn.utils.rnn.pad_packed_sequence(states, batch_first=True, total_length=T)
        torch.autograd.backward(h, dh)
        return h, h_last

    h, h_last = forward_and_back()
    assert x.grad is not None
    arrays = {"h": h.detach().numpy(), "h_last": h_last.detach().numpy(), "dx": x.grad.numpy().copy()}
    # The gradient of a rearranged weight is rearranged as the weight is.
    gradient = {name: parameter.grad for name, parameter in gru.named_parameters()}
    for number, layer in enumerate(layers):
        for direction in range(len(layer)):
            suffix = f"l{number}" + "_reverse" * direction
            params = _gru_from_torch({name: gradient[f"{name}_{suffix}"].numpy() for name in _WEIGHTS})
            arrays |= dict(named_arrays(params, f"{number}.{direction}."))
    job.save(arrays)
    memory = PeakMemory()
    times = time_calls(job, forward_and_back)
    return Measurement(times, memory.growth())


# --- inference --------------------------------------------------------------------------------------------------


def _measure_forward(job: Job) -> Measurement:
    """Time is the first axis, which is ``nn.GRU``'s own order."""
    params, data, _ = job.problem()
    ((gru,),) = params.gru
    _, _, H, I = job.shape  # noqa: E741
    layer: Any = nn.GRU(I, H)
    layer.load_state_dict({f"{name}_l0": tensor for name, tensor in _tensors(gru_to_torch(gru)).items()})
    x = torch.from_numpy(np.ascontiguousarray(data.swapaxes(0, 1)))
    h, h_last = layer(x)
    job.save({"h": h.numpy().swapaxes(0, 1), "h_last": h_last[0].numpy()})
    return Measurement(time_calls(job, lambda: layer(x)))


def _measure_stream(job: Job) -> Measurement:
    params, data, _ = job.problem()
    ((gru,),) = params.gru
    B, T, H, I = job.shape  # noqa: E741
    cell: Any = nn.GRUCell(I, H)
    cell.load_state_dict(_tensors(gru_to_torch(gru)))
    x, h = torch.from_numpy(data), torch.zeros(B, H)
    states = []
    for t in range(T):
        h = cell(x[:, t], h)
        states.append(h.detach())
    job.save({"h": torch.stack(states, 1).numpy()})
    x_t = x[:, 0].contiguous()

    def step() -> None:
        nonlocal h
        h = cell(x_t, h)

    def detached_step() -> None:
        nonlocal h
        h = cell(x_t, h.detach())  # else the graph would grow

    return Measurement(time_calls(job, detached_step if torch.is_grad_enabled() else step))
