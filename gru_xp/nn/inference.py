"""A GRU layer that only predicts: its weights are put together once."""

from array_api_compat import array_namespace

from gru_xp.nn.cell import FORWARD_STEPS, check_params, joint_weights
from gru_xp.nn.checks import check_array, check_kind
from gru_xp.nn.gru import filled
from gru_xp.nn.params import GRUParams, Reset, check_reset, map_arrays
from gru_xp.nn.scan import Array, Known, Run, Scan, kind_of, on_its_device, run_of_scan, scan_of, whole


class GRUInference:
    """A GRU layer without gradients, over whole sequences or one step at a time.

    A layer may be used by one thread at a time; different threads use different layers.

    Parameters
    ----------
    params : GRUParams
        They are copied: later changes have no effect. Of PyTorch, they must be detached.
    reset
        See `gru_forward`.
    ops : Scan, optional
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
    >>> from gru_xp.nn.params import init_gru_params
    >>> layer = GRUInference(init_gru_params(2, 5, xp=np, seed=0))
    >>> h, h_last = layer(np.ones((3, 4, 2)))
    >>> h.shape, layer.step(np.ones((3, 2)), h_last).shape
    ((3, 4, 5), (3, 5))
    """

    @on_its_device
    def __init__(self, params: GRUParams, *, reset: Reset | None = None, ops: Scan | None = None) -> None:
        check_kind("params", params, GRUParams, "a GRUParams")
        check_params(params, params.weight_ih)
        check_reset(reset, params)
        self._xp = array_namespace(params.bias)
        self._params = map_arrays(lambda array: self._xp.asarray(array, copy=True), params)
        self._ops = ops  # as they were given
        self._scan = scan_of(params.bias, ops, new=True)
        self._weights = self._scan.call(joint_weights, self._params)
        self._zeros: Array | None = None
        self._h: Array | None = None  # the state after the last call of `step`
        self._known, self._known_steps = Known(), Known()

    def __getstate__(self) -> tuple[GRUParams, Scan | None, Array | None]:
        return self._params, self._ops, self._h

    def __setstate__(self, state: tuple[GRUParams, Scan | None, Array | None]) -> None:
        params, ops, h = state
        self.__init__(params, ops=ops)  # type: ignore[misc]
        self._h = h

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
        kind, _ = kind_of((x, h0))
        run: Run | None = self._known.get(kind)
        if run is None:
            check_array("x", x, ("B", "T", self._params.input_size), like=("params", self._params.bias))
            if h0 is not None:
                check_array("h0", h0, (x.shape[0], self._params.hidden_size), like=("x", x))
        permute, h = self._xp.permute_dims, self._zeros_for(x.shape[0]) if h0 is None else h0
        xs = permute(x, (1, 0, 2)), None
        if run is None:
            run = run_of_scan(self._scan, FORWARD_STEPS[True, False], self._weights, h, xs)
            self._known.add(kind, run)
        h, (all_h,), _ = run((h, xs, (None,)), (h, xs[0]))
        return permute(whole(all_h), (1, 0, 2)), h

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
            The state after the step. It is kept for the next call, too: copy it before you write into it.

        Raises
        ------
        ShapeError
            A shape does not fit.

        Notes
        -----
        Inside of `jax.jit`, give `h` at each call: a state that is kept there cannot be used outside.
        """
        is_own = h is None and self._h is not None and self._h.shape[:1] == getattr(x, "shape", ())[:1]
        h = self._h if is_own else h
        kind, _ = kind_of((x,) if is_own else (x, h))
        run: Run | None = self._known_steps.get(kind)
        if run is None:
            check_array("x", x, ("B", self._params.input_size), like=("params", self._params.bias))
            if h is not None:
                check_array("h", h, (x.shape[0], self._params.hidden_size), like=("params", self._params.bias))
        h = self._zeros_for(x.shape[0]) if h is None else h
        xs = x[None, ...], None
        if run is None:
            same = type(x), type(h), x.shape  # for every state that fits
            run = self._known_steps.get(same)
            if run is None:
                run = run_of_scan(self._scan, FORWARD_STEPS[False, False], self._weights, h, xs)
                self._known_steps.add(same, run)
            self._known_steps.add(kind, run)
        self._h, _, _ = run((h, xs, (None,)), (h, xs[0]))
        return self._h

    def _zeros_for(self, B: int) -> Array:
        """States before the first step."""
        if self._zeros is not None and self._zeros.shape[0] == B:
            return self._zeros
        zeros = filled(0.0, (B, self._params.hidden_size), like=self._params.bias)
        if type(zeros) is type(self._params.bias):  # and not of a function that is traced, such as by jax.jit
            self._zeros = zeros
        return zeros
