"""Whole forecasters as ONNX models, and back: scaling, patches, GRU layers, output layer, skip.

The scaling is computed in float64, as gru-xp does it, and the network in float32. What is no computation (settings,
names of columns) is text in the model's metadata.
"""

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from gru_xp.devices import Device, to_host
from gru_xp.errors import CheckpointError
from gru_xp.forecasting import Forecaster
from gru_xp.forecasting.predicting import is_transformed
from gru_xp.forecasting.scaling import FLOOR, Scaler
from gru_xp.forecasting.transforms import MEAN_LOSSES
from gru_xp.interop.checking import check_forecaster
from gru_xp.interop.forecaster_parts import DESCRIPTION, build_forecaster, read_description, write_description
from gru_xp.interop.gates import HostArray, host_layers
from gru_xp.interop.onnx_graph import (
    STANDARD_DOMAINS,
    GraphBuilder,
    ModelSource,
    StoredTensors,
    check_valid,
    describe_node,
    naming,
    read_model,
    run_model,
    to_bytes,
)
from gru_xp.interop.onnx_gru import add_gru_layers
from gru_xp.interop.onnx_nodes import read_gru_layers
from gru_xp.nn.checks import check_kind
from gru_xp.nn.params import LinearParams, named_arrays
from gru_xp.training.files import check_path, replace_file

if TYPE_CHECKING:
    from onnx import ModelProto

OPERATORS = (
    *("Add", "Cast", "Concat", "Constant", "Div", "Exp", "GRU", "Gemm", "Identity", "Log", "Max", "Min", "Mul", "Pad"),
    *("ReduceMean", "Reshape", "Slice", "Split", "Sqrt", "Squeeze", "Sub", "TopK", "Transpose", "Unsqueeze"),
)
"""Of models of forecasters, also where other programs have rearranged them."""

DOC = """A forecaster, written by gru-xp.

windows (B, {seq_length}, {n_columns}): rows one after the other, in the data's units; columns: {columns}.
predictions {shape}: of {target} in {where} after each window, in the data's units.
"""

DOC_OF_QUANTILES = """quantiles (B, {Q}, {h}): of the same rows, for the levels {levels}.
"""


def to_onnx(forecaster: Forecaster) -> "ModelProto":
    """An ONNX model that predicts what the forecaster does, from windows in the data's units.

    Parameters
    ----------
    forecaster
        One that has learned.

    Returns
    -------
    onnx.ModelProto
        With the input ``windows (B, seq_length, F)`` and the output ``predictions (B,)``, or ``(B, horizon)`` for a
        horizon above 1, both float64, for any B. A forecaster of quantiles, or of ``loss="gaussian"``, has the output
        ``quantiles (B, Q, horizon)``, too, rising as in `Forecaster.forecast_distribution`. The network is computed in
        float32, as onnxruntime has no other GRU; weights of float64 are stored as they are.

    Raises
    ------
    CheckpointError
        The forecaster cannot be represented (zoneout, ``missing="mask"``, ``loss="poisson"``,
        ``transform="diff"``, a guard that chose a forecast without training), or the model does not predict the same.
    GruXpError
        onnx or onnxruntime is not installed, or the forecaster is not fitted.

    Examples
    --------
    >>> session = onnxruntime.InferenceSession(to_onnx(forecaster).SerializeToString())
    >>> session.run(None, {"windows": series[None, -forecaster.window_length :, :]})
    [array([24.1])]
    """
    check_kind("forecaster", forecaster, Forecaster, "a Forecaster; layers are converted by gru_to_onnx")
    description = write_description(forecaster, "ONNX' GRU")
    if forecaster.loss == "poisson":
        raise CheckpointError(
            "loss='poisson' cannot be represented: ONNX has no quantiles of a Poisson distribution; export to .pt, or "
            "train with --loss quantile"
        )
    params, columns, h = forecaster.params, forecaster.columns, forecaster.horizon
    graph = GraphBuilder()
    scaled, level, unit = _add_scaling(graph, forecaster)
    graph.cast(scaled, "FLOAT", "x")
    graph.add("Transpose", [_add_patches(graph, forecaster)], ["x.time_first"], perm=(1, 0, 2))
    layers = host_layers(params.gru)
    D, H = len(layers[0]), layers[0][0].hidden_size
    _, last = add_gru_layers(graph, "x.time_first", layers)
    graph.add("Transpose", [last[-1]], ["state.directions"], perm=(1, 0, 2))  # (B, D, H)
    graph.add("Reshape", ["state.directions", graph.store("state.shape", np.asarray([0, D * H]))], ["state"])
    y = _add_linear(graph, "linear", params.linear, "state")
    if params.skip is not None:
        target = _add_slice(graph, "x", "target.all", 2, 0, 1)  # (B, T, 1)
        graph.add("Squeeze", [target, graph.store("target.axes", np.asarray([2]))], ["target"])
        y = graph.add("Add", [y, _add_linear(graph, "skip", params.skip, "target")], ["y"])
    graph.cast(y, "DOUBLE", "y.double")
    quantiles = _add_outputs(graph, forecaster, level, unit)
    shape: tuple[str | int, ...] = ("B",) if h == 1 else ("B", h)
    model = graph.model(
        "forecaster",
        {"windows": ("DOUBLE", ("B", forecaster.window_length, len(columns)))},
        {"predictions": ("DOUBLE", shape)} | ({"quantiles": ("DOUBLE", ("B", len(quantiles), h))} if quantiles else {}),
        doc=DOC.format(
            seq_length=forecaster.window_length,
            n_columns=len(columns),
            columns=", ".join(columns),
            target=columns[0],
            shape="(B,)" if h == 1 else f"(B, {h})",
            where="the row" if h == 1 else f"the {h} rows",
        )
        + (DOC_OF_QUANTILES.format(Q=len(quantiles), h=h, levels=", ".join(map(str, quantiles))) if quantiles else ""),
    )
    model.metadata_props.add(key=DESCRIPTION, value=description)
    check_valid(model)
    _check(model, forecaster, "to ONNX")
    return model


def _add_scaling(graph: GraphBuilder, forecaster: Forecaster) -> tuple[str, str, str]:
    """Add what `Scaler.scales` does; the names of scaled windows, and of the target's level and unit, which are 2-D."""
    scaler, F = forecaster.scaler, len(forecaster.columns)
    windows = _add_transform(graph, forecaster)

    def numbers(name: str, values: tuple[float, ...]) -> str:
        return graph.store(name, np.asarray([[values]]))  # (1, 1, F)

    if scaler.kind in ("last", "window"):
        level = _add_slice(graph, windows, "windows.last", 1, -1, 2**31)  # (B, 1, F)
        graph.add("Sub", [windows, level], ["windows.level"])
        unit = numbers("change_std", scaler.change_std) if scaler.kind == "last" else _add_deviation(graph, scaler)
    else:
        names = {"standard": ("mean", "std"), "robust": ("median", "iqr")}.get(scaler.kind)
        values = [getattr(scaler, name) for name in names] if names else [(0.0,) * F, (1.0,) * F]
        level, unit = map(numbers, names or ("zero", "one"), values)
        graph.add("Sub", [windows, level], ["windows.level"])
    scaled = graph.add("Div", ["windows.level", unit], ["windows.scaled"])
    level, unit = (
        graph.add(
            "Squeeze", [_add_slice(graph, name, f"{what}.all", 2, 0, 1), graph.store(f"{what}.axes", axes)], [what]
        )
        for what, name, axes in (("level", level, np.asarray([1])), ("unit", unit, np.asarray([1])))
    )
    return scaled, level, unit


def _add_transform(graph: GraphBuilder, forecaster: Forecaster) -> str:
    """Add the transform of the target in ``windows``; the result's name."""
    kind, F = forecaster.target_transform.kind, len(forecaster.columns)
    if kind == "none":
        return "windows"
    target = _add_slice(graph, "windows", "windows.target", 2, 0, 1)
    graph.add({"log": "Log", "sqrt": "Sqrt"}[kind], [target], ["windows.learned"])
    if F == 1:
        return "windows.learned"
    others = _add_slice(graph, "windows", "windows.features", 2, 1, F)
    return graph.add("Concat", ["windows.learned", others], ["windows.transformed"], axis=2)


def _add_inverse(graph: GraphBuilder, forecaster: Forecaster, name: str, *, is_mean: bool) -> None:
    """Add what makes the output of this name from that of the transformed target, as its forecasts do."""
    transform, x = forecaster.target_transform, f"{name}.transformed"
    variance = ""
    if is_mean and forecaster.loss == "gaussian":
        variance = graph.add("Mul", ["deviation.data", "deviation.data"], ["variance.steps"])
        if forecaster.horizon == 1:
            variance = graph.add("Squeeze", [variance, graph.store("variance.axes", np.asarray([1]))], ["variance"])
    elif is_mean:
        variance = graph.store("variance", np.asarray(transform.variance))
    if transform.kind == "log":
        if variance:
            half = graph.add("Mul", [variance, graph.store("variance.half", np.asarray(0.5))], ["variance.halved"])
            x = graph.add("Add", [x, half], [f"{name}.mean"])
        x = graph.add("Exp", [x], [f"{name}.inverse"])
    elif transform.kind == "sqrt":
        x = graph.add("Max", [x, graph.store(f"{name}.zero", np.asarray(0.0))], [f"{name}.root"])
        x = graph.add("Mul", [x, x], [f"{name}.inverse"])
        if variance:
            x = graph.add("Add", [x, variance], [f"{name}.mean"])
    for operator, limit in (("Max", forecaster.minimum), ("Min", forecaster.maximum)):
        if limit is not None:
            least = graph.store(f"{name}.{operator}", np.asarray(float(limit)))
            x = graph.add(operator, [x, least], [f"{name}.{operator.lower()}"])
    graph.add("Identity", [x], [name])


def _add_deviation(graph: GraphBuilder, scaler: Scaler) -> str:
    """Add the units of windows of which ``windows.level`` is what is left without their last row."""
    axis = graph.store("deviation.axis", np.asarray([1]))
    graph.add("ReduceMean", ["windows.level", axis], ["deviation.mean"], keepdims=1)
    graph.add("Sub", ["windows.level", "deviation.mean"], ["deviation.all"])
    graph.add("Mul", ["deviation.all", "deviation.all"], ["deviation.squares"])
    graph.add("ReduceMean", ["deviation.squares", axis], ["deviation.variance"], keepdims=1)
    graph.add("Sqrt", ["deviation.variance"], ["deviation"])
    floor = graph.store("deviation.floor", FLOOR * np.asarray([[scaler.std]]))
    return graph.add("Add", ["deviation", floor], ["windows.unit"])


def _add_patches(graph: GraphBuilder, forecaster: Forecaster) -> str:
    """Add what cuts the scaled windows ``x`` into patches; the result's name."""
    sizes = forecaster.architecture()
    k, L = sizes.patch_size, forecaster.window_length
    if k == 1:
        return "x"
    name, missing = "x", -L % k
    if missing:
        name = graph.add("Pad", ["x", graph.store("x.missing", np.asarray([0, missing, 0, 0, 0, 0]))], ["x.filled"])
    shape = graph.store("x.shape", np.asarray([0, (L + missing) // k, k * sizes.input_size]))
    return graph.add("Reshape", [name, shape], ["x.patches"])


def _add_linear(graph: GraphBuilder, part: str, params: LinearParams, x: str) -> str:
    names = [graph.store_weights(name, to_host(array)) for name, array in named_arrays(params, f"{part}.")]
    return graph.add("Gemm", [x, *names], [f"{part}.y"], transB=1)


def _add_outputs(graph: GraphBuilder, forecaster: Forecaster, level: str, unit: str) -> tuple[float, ...]:
    """Add what `Outputs.forecasts` makes of ``y.double``: ``predictions``, and ``quantiles``; return their levels."""
    outputs, h, is_changed = forecaster.outputs, forecaster.horizon, is_transformed(forecaster)
    predictions, quantiles = (f"{name}.transformed" if is_changed else name for name in ("predictions", "quantiles"))
    location = "y.double" if outputs.loss != "gaussian" else _add_slice(graph, "y.double", "y.mean", 1, 0, h)
    graph.add("Mul", [location, unit], ["change"])
    points = graph.add("Add", [level, "change"], ["locations" if outputs.quantiles or h == 1 else predictions])
    steps = graph.store("steps.axis", np.asarray([1])) if outputs.quantiles or h == 1 else ""
    if outputs.loss == "quantile":
        shape = graph.store("quantiles.shape", np.asarray([-1, len(outputs.quantiles), h]))
        graph.add("Reshape", [points, shape], ["quantiles.unsorted"])
        count = graph.store("quantiles.count", np.asarray([len(outputs.quantiles)]))
        graph.add("TopK", ["quantiles.unsorted", count], [quantiles, "quantiles.order"], axis=1, largest=0)
        point = _add_slice(graph, quantiles, "point", 1, outputs.point, outputs.point + 1)  # (B, 1, h)
        points = graph.add("Squeeze", [point, steps], ["point.steps" if h == 1 else predictions])
    elif outputs.loss == "gaussian":
        graph.add("Exp", [_add_slice(graph, "y.double", "y.log_deviation", 1, h, 2 * h)], ["y.deviation"])
        graph.add("Mul", ["y.deviation", unit], ["deviation.data"])
        mean, deviation = (graph.add("Unsqueeze", [a, steps], [f"{a}.row"]) for a in (points, "deviation.data"))
        scores = graph.store("scores", np.asarray(outputs.scores)[:, None])  # (Q, 1)
        graph.add("Mul", [scores, deviation], ["deviations"])  # (B, Q, h)
        graph.add("Add", [mean, "deviations"], [quantiles])
        if h > 1:
            graph.add("Identity", [points], [predictions])
    if h == 1:
        graph.add("Squeeze", [points, steps], [predictions])
    if is_changed:
        is_mean = forecaster.loss in MEAN_LOSSES and forecaster.target_transform.kind != "none"
        _add_inverse(graph, forecaster, "predictions", is_mean=is_mean)
        if outputs.quantiles:
            _add_inverse(graph, forecaster, "quantiles", is_mean=False)
    return outputs.quantiles


def _add_slice(graph: GraphBuilder, x: str, name: str, axis: int, start: int, end: int) -> str:
    places = (("start", start), ("end", end), ("axis", axis))
    return graph.add("Slice", [x, *(graph.store(f"{name}.{what}", np.asarray([at])) for what, at in places)], [name])


def from_onnx(model: ModelSource, *, device: str | Device = "auto") -> Forecaster:
    """The forecaster that `to_onnx` made a model of, on any device.

    Parameters
    ----------
    model : path or onnx.ModelProto
        Weights are read from its graph, settings and the names of the columns from its metadata.
    device
        A name for `resolve_device`, or its result.

    Returns
    -------
    Forecaster
        With the same weights, bit for bit.

    Raises
    ------
    CheckpointError
        It is no such model, or the forecaster does not predict what the model does.

    Examples
    --------
    >>> from_onnx("model.onnx").forecast(series, steps=5)
    """
    with naming(model):
        proto = read_model(model)
        description = _read_description(proto)
        for node in proto.graph.node:
            if node.domain not in STANDARD_DOMAINS or node.op_type not in OPERATORS:
                raise CheckpointError(f"{describe_node(node)} is not part of a forecaster of gru-xp")
        linear, skip = _read_linear(proto)
        forecaster = build_forecaster(read_gru_layers(proto), linear, description, device, skip=skip)
        _check(proto, forecaster, "from ONNX")
    return forecaster


def save_onnx(forecaster: Forecaster, path: str | os.PathLike[str]) -> None:
    """Write a forecaster to a file that onnxruntime runs; see `to_onnx`.

    Parameters
    ----------
    forecaster
        One that has learned.
    path
        The file; one that exists is replaced.

    Raises
    ------
    CheckpointError
        As from `to_onnx`, or the file cannot be written.
    """
    check_path(path)
    replace_file(path, to_bytes(to_onnx(forecaster)))


def load_onnx(path: str | os.PathLike[str], *, device: str | Device = "auto") -> Forecaster:
    """Read a forecaster that `save_onnx` wrote, onto any device; see `from_onnx`."""
    return from_onnx(path, device=device)


def _read_description(model: "ModelProto") -> dict[str, Any]:
    texts = [entry.value for entry in model.metadata_props if entry.key == DESCRIPTION]
    if not texts:
        raise CheckpointError(
            "an ONNX model without a gru-xp Forecaster; to read only its GRU layers, use gru_xp.interop.gru_from_onnx"
        )
    return read_description(texts[0])


def _read_linear(model: "ModelProto") -> tuple[LinearParams, LinearParams | None]:
    """The output layer, which reads the states, and the skip, which does not."""
    nodes = [node for node in model.graph.node if node.op_type == "Gemm"]
    made_by = {name: node for node in model.graph.node for name in node.output}
    linear = [node for node in nodes if _reads_states(node, made_by)]
    skip = [node for node in nodes if node not in linear]
    if len(linear) != 1 or len(skip) > 1 or any(len(node.input) != 3 for node in nodes):
        raise CheckpointError(
            f"has {len(linear)} output layers (Gemm nodes on states of a GRU) and {len(skip)} skips (others); a "
            "forecaster of gru-xp has one, and at most one skip, each with bias"
        )
    stored = StoredTensors(model.graph)

    def read(node: Any) -> LinearParams:
        what = describe_node(node)
        arrays = (stored.array(name, f"{label} of {what}") for name, label in zip(node.input[1:], "BC", strict=True))
        return LinearParams(*(array.copy() for array in arrays))

    return read(linear[0]), read(skip[0]) if skip else None


def _reads_states(node: Any, made_by: "dict[str, Any]") -> bool:
    """Whether what a node computes goes back to a GRU; graphs have no cycles."""
    seen, names = set[str](), list(node.input)
    while names:
        name = names.pop()
        if name in seen or name not in made_by:
            continue
        seen.add(name)
        if made_by[name].op_type == "GRU":
            return True
        names += made_by[name].input
    return False


def _check(model: "ModelProto", forecaster: Forecaster, conversion: str) -> None:
    """Refuse a model that does not predict what the forecaster does."""

    def predict(windows: HostArray) -> HostArray:
        results = run_model(model, {"windows": windows})
        expected = 2 if forecaster.outputs.quantiles else 1
        if len(results) != expected or any(result.dtype != np.float64 for result in results):
            got = ", ".join(str(result.dtype) for result in results)
            number = "two arrays" if expected == 2 else "one array"
            raise CheckpointError(f"{conversion}: the model gives {got}; such a forecaster's gives {number} of float64")
        points, *quantiles = results
        points = points[:, None] if points.ndim == 2 else points[:, None, None]
        if any(array.ndim != 3 or array.shape[::2] != points.shape[::2] for array in quantiles):
            raise CheckpointError(f"{conversion}: quantiles have shape {quantiles[0].shape}, unlike the predictions")
        return np.concatenate([points, *quantiles], axis=1)

    check_forecaster(forecaster, predict, conversion, dtype="float32")
