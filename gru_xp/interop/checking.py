"""What every conversion does before its result is used: run both sides on random input, and compare."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gru_xp.devices import resolve_device, to_host
from gru_xp.errors import CheckpointError, DataError
from gru_xp.forecasting import Forecaster
from gru_xp.forecasting.windows import make_windows
from gru_xp.interop.gates import HostArray, host_layers
from gru_xp.io.series import TimeSeries
from gru_xp.nn.params import map_arrays
from gru_xp.nn.stack import Layers, gru_stack_forward

LENGTHS = (6, 1, 4, 6, 3)
"""Of the random sequences: unsorted, and some with steps past their end."""

WINDOWS = 7
"""How many windows a forecaster is tried on."""

LARGEST_WINDOW = 10**7
"""Numbers in a window, of which the trial needs some."""

SEEDS = (1, 2, 3)
"""Of the roundings whose effect is looked at, and of which the largest counts."""

MARGIN = 100.0
"""How many times the effect of rounding all numbers once a difference may be."""


class Trial:
    """Random input for a stack of layers, and what gru-xp makes of it.

    Parameters
    ----------
    layers
        The stack, on any device. It is computed in float64.
    lengths
        Of the sequences, of which the longest gives T.

    Attributes
    ----------
    layers
        As float64 on the host.
    eps
        Of the layers' own dtype, in which they were converted.
    x : array, shape ``(B, T, I)``
    h0 : array, shape ``(L * D, B, H)``
        In PyTorch's order.
    lengths : array, shape ``(B,)``
        int64.
    inside : array, shape ``(B, T)``
        Whether a step is within its sequence.
    h : array, shape ``(B, T, D * H)``
        Zero past a sequence's length.
    h_last : array, shape ``(L * D, B, H)``
    """

    def __init__(self, layers: Layers, *, lengths: Sequence[int] = LENGTHS) -> None:
        host = host_layers(layers)
        self.layers = map_arrays(_rounding(0.0), host)
        self.eps = float(np.finfo(host[0][0].bias.dtype).eps)
        B, T, D, H = len(lengths), max(lengths), len(layers[0]), self.layers[0][0].hidden_size
        rng = np.random.default_rng(0)
        self.x: HostArray = rng.standard_normal((B, T, self.layers[0][0].input_size))
        self.h0: HostArray = rng.uniform(-1.0, 1.0, (len(layers) * D, B, H))
        self.lengths: HostArray = np.asarray(lengths, np.int64)
        self.inside: HostArray = np.arange(T) < self.lengths[:, None]
        self.h, self.h_last = self._run(self.layers)

    def check(self, conversion: str, h: Any, h_last: Any) -> None:
        """Compare with what the other side makes of the same input.

        Parameters
        ----------
        conversion
            What is being done, for the message.
        h, h_last
            The other side's, like `Trial.h` and `Trial.h_last`; their dtype says how finely it computes.

        Raises
        ------
        CheckpointError
            They differ by more than rounding.
        """
        results = (np.asarray(h), np.asarray(h_last))
        eps = max(self.eps, *(float(np.finfo(result.dtype).eps) for result in results))
        rounded = zip(*(self._run(map_arrays(_rounding(eps, seed), self.layers)) for seed in SEEDS), strict=True)
        for name, got, own, moved in zip(("h", "h_last"), results, (self.h, self.h_last), rounded, strict=True):
            if got.shape != own.shape:
                raise CheckpointError(f"{conversion}: {name} has shape {got.shape} instead of {own.shape}")
            _check_difference(f"{conversion}: on random input, {name}", got, own, moved, eps)

    def _run(self, layers: Layers) -> tuple[HostArray, HostArray]:
        with np.errstate(all="ignore"):  # what is not finite differs, and is refused for that
            h, h_last, _ = gru_stack_forward(self.x, self.h0, layers, lengths=self.lengths, with_cache=False)
        return np.asarray(h), np.asarray(h_last)


def check_forecaster(
    forecaster: Forecaster, predict: Callable[[HostArray], Any], conversion: str, *, dtype: str | None = None
) -> None:
    """Compare a forecaster's predictions after random windows with what the other side makes of the same.

    Parameters
    ----------
    forecaster
        On any device; it is computed in float64.
    predict
        The other side: from windows ``(B, seq_length, F)``, float64, to point and quantiles ``(B, 1 + Q, h)``, both in
        the data's units.
    conversion
        What is being done, for the message.
    dtype : {"float32", "float64"}, optional
        What the other side computes in, where that is coarser than the forecaster's own.

    Raises
    ------
    CheckpointError
        They differ by more than rounding, or the windows are too large to try it.
    """
    S, F = forecaster.window_length, len(forecaster.columns)
    if S * F > LARGEST_WINDOW:
        raise CheckpointError(f"windows of {S:,} rows and {F:,} columns are too large for the check of a conversion")
    scaler, transform = forecaster.scaler, forecaster.target_transform
    mean, std, change_std = map(np.asarray, (scaler.mean, scaler.std, scaler.change_std))
    rng = np.random.default_rng(0)
    eps = max(float(np.finfo(name).eps) for name in (forecaster.dtype, dtype or forecaster.dtype))

    def forecasts(forecaster: Forecaster) -> HostArray:
        named = forecaster.forecast_distributions(series, range(S, S + WINDOWS), forecaster.horizon)
        return np.stack(list(named.values()), axis=1)

    with np.errstate(all="ignore"):  # what is not finite differs, and is refused for that
        walk = np.cumsum(change_std * rng.standard_normal((S + WINDOWS, F)), axis=0)
        rows = mean + std * rng.uniform(-1.0, 1.0, F) + walk
        rows[:, 0] = transform.inverse(rows[:, :1, None], rows[:, 0])[:, 0, 0]
        series = TimeSeries(rows, forecaster.columns)
        windows, _ = make_windows(series.values, S)
        try:
            results = (
                np.asarray(predict(np.ascontiguousarray(windows))),
                forecasts(_rounded_forecaster(forecaster, 0.0)),
                *(forecasts(_rounded_forecaster(forecaster, eps, seed)) for seed in SEEDS),
            )
        except DataError as error:
            raise CheckpointError(f"{conversion}: on random windows, {error}") from error
        if results[0].shape != results[1].shape:
            raise CheckpointError(
                f"{conversion}: predictions have shape {results[0].shape} instead of {results[1].shape}"
            )
        if forecaster.loss == "poisson":  # its quantiles are whole numbers, which rounding may change by 1
            results = tuple(predictions[:, :1] for predictions in results)
        flat = (transform.forward(predictions.reshape(WINDOWS, -1)) for predictions in results)
        windows = transform.forward_windows(windows)
        got, own, *moved = (scaler.scale_targets(predictions, windows) for predictions in flat)
        unit = np.min(scaler.target_scales(windows)[1])
        of_scaling = float(np.finfo(np.float64).eps * np.max(np.abs(windows)) / unit)
        _check_difference(f"{conversion}: on random windows, the scaled prediction", got, own, moved, eps, of_scaling)


def _check_difference(
    what: str, got: HostArray, own: HostArray, moved: Sequence[HostArray], eps: float, others: float = 0.0
) -> None:
    """Refuse what differs from `own` by more than rounding, which `moved` shows, and `others`, which add to it."""
    room = MARGIN * (max(eps, *(float(np.max(np.abs(array - own))) for array in moved)) + others)
    difference = float(np.max(np.abs(got - own)))
    if not difference <= room < np.inf:  # NaN, too
        raise CheckpointError(
            f"{what} differs by {difference:.2g}, which is more than rounding ({room:.2g}); the result is not to be "
            "trusted and was thrown away"
        )


def _rounded_forecaster(forecaster: Forecaster, eps: float, seed: int = 0) -> Forecaster:
    """The forecaster in float64 on the CPU, every number rounded up or down by a share of `eps`."""
    params = map_arrays(_rounding(eps, seed), forecaster.params)
    description = forecaster.describe()
    description["settings"] = description["settings"] | {"dtype": "float64"}
    return Forecaster.from_parts(params, description, resolve_device("cpu"))


def _rounding(eps: float, seed: int = 0) -> Callable[[Any], HostArray]:
    """A function that gives an array as float64, every number rounded up or down by a share of `eps`, at random."""
    rng = np.random.default_rng(seed)

    def rounded(array: Any) -> HostArray:
        host: HostArray = to_host(array).astype(np.float64)
        host *= 1.0 + eps * rng.choice((-1.0, 1.0), host.shape)
        return host

    return rounded
