"""The layers that ``variants`` times: what they are made of, and their data."""

from typing import Any, NamedTuple

import numpy as np

from benchmarks.job import SEED, Array, Job
from gru_xp.nn.dropout import dropout_mask, keep_mask
from gru_xp.nn.stack import Layers, init_gru_stack_params


class Stack(NamedTuple):
    """A variant of the GRU.

    Attributes
    ----------
    num_layers, bidirectional
        See `init_gru_stack_params`.
    lengths
        Whether the sequences end early, after a number of steps that is drawn evenly from 1 to T.
    only_ours
        What `gru_forward` can do and PyTorch cannot: the name of an argument; a stack with one is a single layer.
    """

    num_layers: int = 1
    bidirectional: bool = False
    lengths: bool = False
    only_ours: str | None = None

    @property
    def n_grus(self) -> int:
        """How many GRUs run over the sequences."""
        return self.num_layers * (2 if self.bidirectional else 1)


STACKS = {
    "one layer": Stack(),
    "lengths": Stack(lengths=True),
    "bidirectional": Stack(bidirectional=True),
    "bidirectional, lengths": Stack(bidirectional=True, lengths=True),
    "two layers": Stack(num_layers=2),
    "three layers, bidirectional": Stack(num_layers=3, bidirectional=True),
    "reverse": Stack(only_ours="reverse"),
    "recurrent dropout": Stack(only_ours="candidate_mask"),
    "zoneout": Stack(only_ours="update_mask"),
    "keep_every": Stack(only_ours="keep_every"),
}
"""By name; the first is what the others are held against."""


class Problem(NamedTuple):
    """Weights, sequences, lengths, and the gradient of the states that goes back."""

    layers: Layers
    x: Array
    lengths: Array | None
    dh: Array
    options: dict[str, Any]


def problem(job: Job) -> Problem:
    """What a job of the task ``variant`` or ``layer`` computes with; every library's is the same."""
    B, T, H, I = job.shape  # noqa: E741
    stack = Stack() if job.task == "layer" else STACKS[job.variant]
    rng = np.random.default_rng(SEED)
    x = rng.standard_normal((B, T, I), dtype=np.float32)
    width = H * (2 if stack.bidirectional else 1)
    lengths = rng.integers(1, T, size=B, endpoint=True) if stack.lengths else None
    dh = rng.standard_normal((B, T, width), dtype=np.float32)
    layers = init_gru_stack_params(
        I,
        H,
        num_layers=stack.num_layers,
        bidirectional=stack.bidirectional,
        reset="after",
        xp=np,
        seed=SEED,
        dtype=np.float32,
    )
    like = np.empty(0, np.float32)
    options: dict[str, Any] = {
        "reverse": True,
        "candidate_mask": dropout_mask((B, H), 0.2, seed=SEED, like=like),
        "update_mask": keep_mask((B, T, H), 0.1, seed=SEED, like=like),
        "keep_every": max(1, round(T**0.5)),
    }
    chosen = {} if stack.only_ours is None else {stack.only_ours: options[stack.only_ours]}
    return Problem(layers, x, lengths, dh, chosen)
