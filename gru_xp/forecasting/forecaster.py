"""The Forecaster: a GRU that learns a series, predicts its next values, and goes into a file."""

import os
import warnings
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field, fields
from numbers import Real
from typing import Any, Literal

import numpy as np

from gru_xp.devices import Device, resolve_device, to_device, to_host
from gru_xp.devices.inventory import versions
from gru_xp.errors import CheckpointError, DataError, GruXpError
from gru_xp.forecasting.scaling import SCALINGS, Scaler
from gru_xp.forecasting.series import TimeSeries, as_series
from gru_xp.forecasting.windows import Floats, make_windows, split_rows
from gru_xp.nn.cell import RESETS, Reset
from gru_xp.nn.checks import check_choice, whole_number
from gru_xp.nn.network import NetworkParams, init_network_params
from gru_xp.nn.ops import Array, Ops
from gru_xp.nn.params import GRUParams, named_arrays
from gru_xp.training.checkpoint import load_checkpoint, save_checkpoint
from gru_xp.training.objective import predict
from gru_xp.training.trainer import EpochRecord, TrainingConfig, TrainingResult, train

DTYPES = ("float32", "float64")


@dataclass
class Forecaster:
    """A GRU and a linear layer that predict a series' next value from its last ones.

    Parameters
    ----------
    seq_length
        Rows that a prediction looks back on.
    hidden_size
        Size H of a GRU layer's state.
    num_layers
        GRU layers one on another.
    bidirectional
        Whether each layer runs over the window backwards, too.
    dropout, recurrent_dropout, zoneout
        What to leave out at random while learning: of what one layer hands on to the next, of the candidates, and of
        the updates of the state; see `DropoutRates`.
    num_epochs, learning_rate, optimizer, reduction, batch_size, clip_norm, patience
        See `TrainingConfig`.
    validation_ratio
        Share of the rows, from their end, that is not trained on but chooses the best epoch; 0 for none.
    scaling : {"last", "standard"}
        How windows are scaled for the network: relative to their last row, or by the training rows' mean and
        standard deviation.
    reset : {"before", "after"}
        The form of the reset gate; see `gru_cell_forward`.
    dtype : {"float32", "float64"}
        What the network computes in.
    seed
        Of the initial parameters, the order of mini-batches, and what is left out.

    Raises
    ------
    ValueError
        A setting is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> series = np.sin(np.arange(200) / 5)
    >>> forecaster = Forecaster(hidden_size=8, num_epochs=20).fit(series, device="cpu")
    >>> forecaster.forecast(series, steps=3).shape
    (3,)
    """

    _: KW_ONLY
    seq_length: int = 10
    hidden_size: int = 32
    num_layers: int = 1
    bidirectional: bool = False
    dropout: float = 0.0
    recurrent_dropout: float = 0.0
    zoneout: float = 0.0
    num_epochs: int = 300
    learning_rate: float = 0.002
    optimizer: str = "adam"
    reduction: str | None = None
    batch_size: int | None = None
    clip_norm: float | None = None
    patience: int | None = 50
    validation_ratio: float = 0.2
    scaling: str = "last"
    reset: Reset = "before"
    dtype: Literal["float32", "float64"] = "float32"
    seed: int = 0

    device: Device = field(init=False, repr=False)
    params: NetworkParams = field(init=False, repr=False)
    scaler: Scaler = field(init=False, repr=False)
    columns: tuple[str, ...] = field(init=False, repr=False)
    best_epoch: int = field(init=False, repr=False)
    training: TrainingResult | None = field(init=False, repr=False, default=None)
    notes: dict[str, Any] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        check_choice("scaling", self.scaling, SCALINGS)
        check_choice("reset", self.reset, RESETS)
        check_choice("dtype", self.dtype, DTYPES)
        for name in ("seq_length", "hidden_size", "num_layers"):
            whole_number(name, getattr(self, name), 1)
        if type(self.bidirectional).__name__ not in ("bool", "bool_"):
            raise ValueError(f"bidirectional is {self.bidirectional!r}; it must be True or False")
        if not isinstance(self.validation_ratio, Real) or not 0 <= self.validation_ratio < 1:
            raise ValueError(f"validation_ratio is {self.validation_ratio!r}; it must be at least 0 and below 1")
        self._training_config()
        if self.dropout > 0 and self.num_layers == 1:
            raise ValueError("dropout acts between layers; use num_layers of at least 2, or recurrent_dropout")
        for f in fields(self):  # numbers of NumPy become Python's, which a model file can hold
            if f.init and hasattr(getattr(self, f.name), "item"):
                setattr(self, f.name, getattr(self, f.name).item())

    def settings(self) -> dict[str, Any]:
        """The settings, as the constructor takes them."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.init}

    def _training_config(self) -> TrainingConfig:
        names = (f.name for f in fields(TrainingConfig))
        return TrainingConfig(**{name: getattr(self, name) for name in names})

    def fit(
        self,
        series: Any,
        *,
        device: str | Device = "auto",
        callback: Callable[[EpochRecord], object] | None = None,
    ) -> "Forecaster":
        """Learn from a series, all of whose rows may be looked at.

        Parameters
        ----------
        series : TimeSeries, pandas.Series, pandas.DataFrame or array
            See `as_series`. Of a DataFrame, ``Close`` or else the first numeric column is the target, and the other
            numeric columns are further inputs.
        device
            A name for `resolve_device`, or its result.
        callback
            Called with an `EpochRecord` after every epoch; the training stops if the result is True.

        Returns
        -------
        Forecaster
            Itself, with the parameters of the best epoch.

        Raises
        ------
        DataError
            The series cannot be learned from.
        """
        series = as_series(series)
        device = device if isinstance(device, Device) else resolve_device(device)
        split = split_rows(len(series), self.seq_length, 1.0, self.validation_ratio)
        scaler = Scaler.fit(self.scaling, series.values[: split.train_end], series.columns)
        windows, targets = make_windows(series.values, self.seq_length)
        y = scaler.scale_targets(targets, windows)[:, None]

        def part(name: str) -> tuple[Array, Array]:
            rows = split.targets(name, self.seq_length)
            x = scaler.scale_windows(windows[rows])
            return to_device(x, device, self.dtype), to_device(y[rows], device, self.dtype)

        xp = device.xp
        with device.use():
            start = init_network_params(
                len(series.columns),
                self.hidden_size,
                1,
                num_layers=self.num_layers,
                bidirectional=self.bidirectional,
                xp=xp,
                seed=self.seed,
                dtype=getattr(xp, self.dtype),
            )
        training = train(
            start,
            *part("train"),
            config=self._training_config(),
            device=device,
            reset=self.reset,
            validation=part("validation") if self.validation_ratio > 0 else None,
            callback=callback,
        )
        self.training, self.params, self.best_epoch = training, training.params, training.best_epoch
        self.device, self.columns, self.scaler = device, series.columns, scaler
        if training.problem is not None:
            warnings.warn(training.problem, RuntimeWarning, stacklevel=2)
        return self

    def predict(self, series: Any) -> Any:
        """Predict every row that has a whole window before it, each from the actual rows before it.

        Parameters
        ----------
        series
            As for `fit`, with the same columns.

        Returns
        -------
        array, shape ``(N - seq_length,)``, or pandas.Series
            In the data's units; element `i` belongs to row ``i + seq_length``. A pandas object gives a
            pandas.Series with those rows' index.

        Raises
        ------
        DataError
            The series has other columns, or too few rows.
        """
        windows, _ = make_windows(self._checked(series, self.seq_length + 1).values, self.seq_length)
        predictions = self._predict_windows(windows, self.device.ops())
        if not hasattr(series, "index") or not hasattr(series, "to_numpy"):
            return predictions
        import pandas as pd

        return pd.Series(predictions, index=series.index[self.seq_length :], name=self.columns[0])

    def forecast(self, series: Any, steps: int) -> Floats:
        """Predict the values after the series' end, each from the predictions before it.

        Further input columns, whose future is not known, stay at their last value.

        Parameters
        ----------
        series
            As for `fit`, with the same columns.
        steps
            How many values.

        Returns
        -------
        array, shape ``(steps,)``
            In the data's units.

        Raises
        ------
        DataError
            The series has other columns, or too few rows.
        """
        steps = whole_number("steps", steps, 1)
        window = self._checked(series, self.seq_length).values[-self.seq_length :].copy()
        forecasts = np.empty(steps)
        ops = self.device.ops()
        for step in range(steps):
            forecasts[step] = self._predict_windows(window[None], ops)[0]
            window = np.concatenate([window[1:], window[-1:]])
            window[-1, 0] = forecasts[step]
        return forecasts

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to a file, which `load` reads on any device.

        Parameters
        ----------
        path
            The file; one that exists is replaced.

        Raises
        ------
        CheckpointError
            The file cannot be written.
        """
        description = self.describe()
        save_checkpoint(path, self.params, description)

    def describe(self) -> dict[str, Any]:
        """All about the model but its parameters, as JSON can hold it; see `from_parts`.

        Raises
        ------
        GruXpError
            It has not learned anything yet.
        """
        self._check_fitted()
        return {
            "settings": self.settings(),
            "scaler": self.scaler.to_dict(),
            "columns": self.columns,
            "device": self.device.name,
            "versions": versions(self.device),
            "best_epoch": self.best_epoch,
            "notes": self.notes,
        }

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, device: str | Device = "auto") -> "Forecaster":
        """Read a model that `save` wrote, onto any device.

        Parameters
        ----------
        path
            The file.
        device
            A name for `resolve_device`, or its result.

        Returns
        -------
        Forecaster

        Raises
        ------
        CheckpointError
            The file is no such model.
        """
        device = device if isinstance(device, Device) else resolve_device(device)
        params, description = load_checkpoint(path, device)
        try:
            return cls.from_parts(params, description, device)
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from error

    @classmethod
    def from_parts(cls, params: NetworkParams, description: dict[str, Any], device: Device) -> "Forecaster":
        """A model of parameters on `device` and of what `describe` gave.

        Raises
        ------
        CheckpointError
            The description is damaged, or it is that of other parameters.
        """
        try:
            forecaster = cls(**description["settings"])
            forecaster.scaler = Scaler.from_dict(description["scaler"])
            forecaster.columns = tuple(description["columns"])
            forecaster.best_epoch = description["best_epoch"]
            forecaster.notes = description["notes"]
        except (KeyError, TypeError, ValueError) as error:
            what = f"there is no {error}" if isinstance(error, KeyError) else error
            raise CheckpointError(f"a gru-xp model whose description is damaged ({what}); take another copy") from error
        scaler = forecaster.scaler
        if {len(numbers) for numbers in (scaler.mean, scaler.std, scaler.change_std)} != {len(forecaster.columns)}:
            raise CheckpointError("a gru-xp model whose scaler has not one number for each column")
        if _shapes(params) != forecaster._expected_shapes():
            raise CheckpointError("a gru-xp model whose weights do not have the shapes that it describes")
        if any(array.dtype != getattr(device.xp, forecaster.dtype) for _, array in named_arrays(params)):
            raise CheckpointError(f"a gru-xp model whose weights are not {forecaster.dtype}, as it describes them")
        forecaster.params = params
        forecaster.device = device
        return forecaster

    def _expected_shapes(self) -> dict[str, tuple[int, ...]]:
        H, D = self.hidden_size, 2 if self.bidirectional else 1
        shapes: dict[str, tuple[int, ...]] = {}
        for layer in range(self.num_layers):
            for direction in range(D):
                I = D * H if layer else len(self.columns)  # noqa: E741
                gru = zip(GRUParams._fields, ((3 * H, I), (3 * H, H), (3 * H,), (H,)), strict=True)
                shapes |= {f"gru.{layer}.{direction}.{name}": shape for name, shape in gru}
        return shapes | {"linear.weight": (1, D * H), "linear.bias": (1,)}

    def _checked(self, series: Any, rows: int) -> TimeSeries:
        self._check_fitted()
        checked = as_series(series, self.columns)
        if len(checked) < rows:
            raise DataError(
                f"{len(checked)} rows are too few: the model looks back on {self.seq_length}; "
                f"at least {rows} are needed"
            )
        return checked

    def _check_fitted(self) -> None:
        if not hasattr(self, "params"):
            raise GruXpError("the forecaster has not learned anything yet; call fit, or Forecaster.load")

    def _predict_windows(self, windows: Floats, ops: Ops) -> Floats:
        """Predictions ``(B,)`` in the data's units after windows ``(B, T, F)``."""
        x = to_device(self.scaler.scale_windows(windows), self.device, self.dtype)
        with self.device.use():
            rates = self._training_config().rates
            scaled = to_host(predict(self.params, x, self.reset, ops, rates))[:, 0].astype(np.float64)
        return self.scaler.unscale_predictions(scaled, windows)


def _shapes(params: NetworkParams) -> dict[str, tuple[int, ...]]:
    return {name: tuple(array.shape) for name, array in named_arrays(params)}
