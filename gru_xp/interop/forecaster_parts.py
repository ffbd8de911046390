"""What files of forecasters share, whatever format the weights have: the text beside them, and the way back."""

import json
from typing import Any

from gru_xp.devices import Device, resolve_device, to_device
from gru_xp.errors import ArgumentError, CheckpointError
from gru_xp.forecasting import Forecaster
from gru_xp.interop.gates import check_finite, float_array
from gru_xp.nn.checks import check_kind
from gru_xp.nn.network import NetworkParams
from gru_xp.nn.params import LinearParams, map_arrays, named_arrays
from gru_xp.nn.stack import Layers
from gru_xp.training.strict_json import read_json
from gru_xp.training.tensors import damaged

DESCRIPTION = "gru_xp"
"""What the text is called in a file."""

LARGEST_DESCRIPTION = 2**21
"""Characters."""


def write_description(forecaster: Forecaster, peer: str) -> str:
    """All about a forecaster but its weights, as a JSON text.

    Parameters
    ----------
    forecaster
        One that has learned.
    peer
        Whose GRU is to predict what the forecaster does, for the message.

    Raises
    ------
    CheckpointError
        No GRU of a peer's can: the forecaster has zoneout, or has learned which values were missing, or from several
        series, or its guard has chosen a forecast without training.
    """
    check_kind("forecaster", forecaster, Forecaster, "a Forecaster", error=ArgumentError)
    description = forecaster.describe()
    if forecaster.zoneout > 0:
        raise CheckpointError(
            f"zoneout={forecaster.zoneout:g} cannot be represented: predictions use its mean, for which {peer} "
            "has no place; train without zoneout"
        )
    if forecaster.sees_gaps:
        raise CheckpointError(
            'missing="mask" cannot be represented: such a model is told which values were missing, for which the file '
            "has no place; train with --missing ffill, or another way"
        )
    if forecaster.units is not None:
        raise CheckpointError(
            "a model of several series cannot be represented: its windows are scaled by the unit of their series, for "
            "which the file has no place; train on one series to export its model"
        )
    if forecaster.fallback is not None:
        raise CheckpointError(
            f"fallback={forecaster.fallback!r} cannot be represented: the guard found the model no better, so that it "
            "forecasts without its weights; train with --no-guard to export them"
        )
    if forecaster.outputs.levels:
        raise CheckpointError(
            f"levels={forecaster.levels} cannot be represented: the file has no place for intervals by held-out "
            "errors; train without --level, or with --loss quantile"
        )
    if forecaster.target_transform.lag:
        raise CheckpointError(
            f"transform={forecaster.target_transform.kind!r} cannot be represented: it needs one row more than the "
            "model's windows have; train with --transform none"
        )
    return json.dumps(description)


def read_description(text: str) -> dict[str, Any]:
    """The inverse of `write_description`; CheckpointError if the text is none of its."""
    try:
        if len(text) > LARGEST_DESCRIPTION:
            raise ValueError(f"{len(text):,} characters; more than {LARGEST_DESCRIPTION:,} are not read")
        description = read_json(text)
        if not isinstance(description, dict):
            raise ValueError("no object")
    except ValueError as error:
        raise damaged("model", error) from error
    return description


def build_forecaster(
    layers: Layers,
    linear: LinearParams,
    description: dict[str, Any],
    device: str | Device,
    *,
    skip: LinearParams | None = None,
) -> Forecaster:
    """The forecaster whose parts these are.

    Parameters
    ----------
    layers, linear, skip
        Of host arrays.
    description
        From `read_description`.
    device
        Where to put it: a name for `resolve_device`, or its result.

    Raises
    ------
    CheckpointError
        The parts do not belong together.
    """
    for part, held in (("linear", linear), ("skip", skip)):
        for name, array in () if held is None else named_arrays(held, f"{part}."):
            check_finite(name, float_array(name, array))
    device = device if isinstance(device, Device) else resolve_device(device)
    params = map_arrays(lambda array: to_device(array, device), NetworkParams(layers, linear, skip))
    forecaster = Forecaster.from_parts(params, description, device)
    for setting, value in (("zoneout", 0.0), ("sees_gaps", False), ("fallback", None), ("units", None)):
        if (described := getattr(forecaster, setting)) != value:
            raise CheckpointError(
                f"a gru-xp model of {setting}={value!r} that is described as one of {described!r}; "
                "export the forecaster again"
            )
    return forecaster
