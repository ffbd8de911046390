"""A GRU layer that only predicts: weights, memory and calls are prepared once."""

from collections.abc import Callable
from typing import NamedTuple

from array_api_compat import array_namespace

from gru_xp.nn.cell import FORMS, NO_MASKS, check_params
from gru_xp.nn.checks import check_array, check_kind
from gru_xp.nn.gru import gru_forward, run_steps, steps_of, time_first
from gru_xp.nn.ops import Array, Ops, default_ops, ops_or_default
from gru_xp.nn.params import GRUParams, Reset, check_reset, map_arrays

MAX_PREPARED = 8
"""Shapes of sequences that stay prepared."""


class GRUInference:
    """A GRU layer without gradients, over whole sequences or one step at a time.

    A layer may be used by one thread at a time; different threads use different layers.

    Parameters
    ----------
    params : GRUParams
        They are copied: later changes have no effect. Of PyTorch, they must be detached.
    reset
        See `gru_forward`.
    ops : Ops, optional
        As for `gru_forward`, but the layer's own if left out; given ones must not be used elsewhere at the same time.

    Raises
    ------
    ShapeError
        The parameters do not go together.
    ArgumentError
        `reset` is not their form.

    Examples
    --------
    >>> import numpy as np
    >>> from gru_xp.nn.params import init_params
    >>> layer = GRUInference(init_params(2, 5, xp=np, seed=0))
    >>> h, h_last = layer(np.ones((3, 4, 2)))
    >>> h.shape, layer.step(np.ones((3, 2)), h_last).shape
    ((3, 4, 5), (3, 5))
    """

    def __init__(self, params: GRUParams, *, reset: Reset | None = None, ops: Ops | None = None) -> None:
        check_kind("params", params, GRUParams, "a GRUParams")
        check_params(params, params.weight_ih)
        check_reset(reset, params)
        copy = array_namespace(params.bias).asarray
        self._params = map_arrays(lambda array: copy(array, copy=True), params)
        self._ops = default_ops(params.bias, new=True) if ops is None else ops_or_default(ops, params.bias)
        self._form = FORMS[params.reset]
        self._type, self._dtype = type(params.bias), params.bias.dtype
        self._weights = self._form.weights(self._params, self._ops)
        self._prepared: dict[tuple[int, ...], _Prepared] = {}  # by the shape of the sequences
        self._step: _Prepared | None = None

    def __call__(self, x: Array, h0: Array | None = None) -> tuple[Array, Array]:
        """The states of whole sequences.

        Parameters
        ----------
        x : array, shape ``(B, T, I)``
        h0 : array, shape ``(B, H)``, or None
            The states before the first step; zeros if None.

        Returns
        -------
        h : array, shape ``(B, T, H)``
            The state after every step.
        h_last : array, shape ``(B, H)``
            The state after the last step.

        Raises
        ------
        ShapeError
            A shape, namespace, device or dtype does not fit.
        """
        # An array of the right type and dtype in a shape that is prepared needs no closer look.
        known = type(x) is self._type and x.dtype == self._dtype
        prepared = self._prepared.get(x.shape) if known else None
        if prepared is None:
            I, H = self._params.input_size, self._params.hidden_size  # noqa: E741
            check_array("x", x, ("B", "T", I), like=("params", self._params.bias))
        B, T, _ = x.shape
        if h0 is not None:
            check_array("h0", h0, (B, self._params.hidden_size), like=("x", x))
        if prepared is None and len(self._ops.parts(B, T, I, H)) > 1:
            h, h_last, _ = gru_forward(x, h0, self._params, ops=self._ops, with_cache=False)
            return h, h_last
        if prepared is None:
            if len(self._prepared) == MAX_PREPARED:
                del self._prepared[next(iter(self._prepared))]
            prepared = self._prepared[x.shape] = self._prepare((T, B))
        prepared.input[...] = time_first(x)
        prepared.before[...] = 0.0 if h0 is None else h0
        prepared.advance()
        h = self._ops.empty(prepared.after.shape, like=x)
        h[...] = prepared.after
        return time_first(h), h[-1, ...]

    def step(self, x: Array, h: Array | None = None) -> Array:
        """One step.

        Parameters
        ----------
        x : array, shape ``(B, I)``
            The step's input.
        h : array, shape ``(B, H)``, or None
            The state before the step; if None, the state after the last call of `step`, or zeros if there was none
            or it was for another number of sequences.

        Returns
        -------
        h : array, shape ``(B, H)``
            The state after the step. The next call writes over it: copy what is to be kept.

        Raises
        ------
        ShapeError
            A shape does not fit.
        """
        prepared = self._step
        if prepared is None or type(x) is not self._type or x.shape != prepared.input_shape or x.dtype != self._dtype:
            prepared = self._step_for(x)
        if h is not None:
            if type(h) is not self._type or h.shape != prepared.state_shape or h.dtype != self._dtype:
                check_array("h", h, prepared.state_shape, like=("params", self._params.bias))
            prepared.before[...] = h
        prepared.input[...] = x
        prepared.advance()
        self._step = prepared
        return prepared.after

    def _step_for(self, x: Array) -> "_Prepared":
        """What takes a step with input `x`, if `x` is in order."""
        check_array("x", x, ("B", self._params.input_size), like=("params", self._params.bias))
        if self._step is not None and self._step.input_shape == x.shape:
            return self._step
        return self._prepare((x.shape[0],))

    def _prepare(self, steps: tuple[int, ...]) -> "_Prepared":
        I, H = self._params.input_size, self._params.hidden_size  # noqa: E741
        form, weights, ops = self._form, self._weights, self._ops
        memory = form.memory(steps, I, H, like=self._params.bias, ops=ops, keep=False)
        joint = memory.joint
        ops.copy(0.0, joint[..., : H + I])
        ops.copy(1.0, joint[..., H + I : H + I + 1])
        if len(steps) == 2:
            all_steps = steps_of(memory, steps[0], reverse=False)
            advance = ops.capture(lambda: run_steps(form, weights, all_steps, ops))
            return _prepared(joint[:-1, :, H : H + I], joint[0, :, :H], joint[1:, :, :H], advance)

        def step() -> None:
            form.input_product(memory, weights, ops)
            form.forward(weights, memory, joint[:, :H], NO_MASKS, ops)

        advance = ops.capture(step)
        ops.copy(0.0, joint[:, :H])
        return _prepared(joint[:, H : H + I], joint[:, :H], joint[:, :H], advance)


class _Prepared(NamedTuple):
    """Where a forward pass reads and writes, and what runs it."""

    input: Array
    before: Array
    after: Array
    advance: Callable[[], object]
    input_shape: tuple[int, ...]
    state_shape: tuple[int, ...]


def _prepared(input: Array, before: Array, after: Array, advance: Callable[[], object]) -> _Prepared:
    return _Prepared(input, before, after, advance, input.shape, before.shape)
