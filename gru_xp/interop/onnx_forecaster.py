"""Whole forecasters as ONNX models, and back: scaling, GRU layers, output layer.

The scaling is computed in float64, as gru-xp does it, and the network in float32. What is no computation (settings,
names of columns) is text in the model's metadata.
"""

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from gru_xp.devices import Device, to_host
from gru_xp.errors import CheckpointError
from gru_xp.forecasting import Forecaster
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
from gru_xp.nn.params import LinearParams
from gru_xp.training.files import check_path, replace_file

if TYPE_CHECKING:
    from onnx import ModelProto

OPERATORS = (
    *("Add", "Cast", "Constant", "Div", "GRU", "Gemm", "Identity", "Mul", "Reshape", "Slice", "Split"),
    *("Squeeze", "Sub", "Transpose", "Unsqueeze"),
)
"""Of models of forecasters, also where other programs have rearranged them."""

DOC = """A forecaster, written by gru-xp.

windows (B, {seq_length}, {n_columns}): rows one after the other, in the data's units; columns: {columns}.
predictions (B,): of {target} in the row after each window, in the data's units.
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
        With the input ``windows (B, seq_length, F)`` and the output ``predictions (B,)``, both float64, for any B. The
        network is computed in float32, as onnxruntime has no other GRU; weights of float64 are stored as they are.

    Raises
    ------
    CheckpointError
        The forecaster cannot be represented (zoneout, ``missing="mask"``), or the model does not predict the same.
    GruXpError
        onnx or onnxruntime is not installed, or the forecaster is not fitted.

    Examples
    --------
    >>> session = onnxruntime.InferenceSession(to_onnx(forecaster).SerializeToString())
    >>> session.run(None, {"windows": series[None, -forecaster.seq_length :, :]})
    [array([24.1])]
    """
    check_kind("forecaster", forecaster, Forecaster, "a Forecaster; layers are converted by gru_to_onnx")
    description = write_description(forecaster, "ONNX' GRU")
    params, columns = forecaster.params, forecaster.columns
    graph = GraphBuilder()
    scaled, level, unit = _add_scaling(graph, forecaster)
    graph.cast(scaled, "FLOAT", "x")
    graph.add("Transpose", ["x"], ["x.time_first"], perm=(1, 0, 2))
    layers = host_layers(params.gru)
    D, H = len(layers[0]), layers[0][0].hidden_size
    _, last = add_gru_layers(graph, "x.time_first", layers)
    graph.add("Transpose", [last[-1]], ["state.directions"], perm=(1, 0, 2))  # (B, D, H)
    graph.add("Reshape", ["state.directions", graph.store("state.shape", np.asarray([0, D * H]))], ["state"])
    names = [
        graph.store_weights(f"linear.{name}", to_host(array))
        for name, array in zip(LinearParams._fields, params.linear, strict=True)
    ]
    graph.add("Gemm", ["state", *names], ["y"], transB=1)
    graph.cast("y", "DOUBLE", "y.double")
    graph.add("Squeeze", ["y.double", graph.store("y.axes", np.asarray([1]))], ["y.scaled"])
    graph.add("Mul", ["y.scaled", unit], ["change"])
    graph.add("Add", [level, "change"], ["predictions"])
    model = graph.model(
        "forecaster",
        {"windows": ("DOUBLE", ("B", forecaster.seq_length, len(columns)))},
        {"predictions": ("DOUBLE", ("B",))},
        doc=DOC.format(
            seq_length=forecaster.seq_length, n_columns=len(columns), columns=", ".join(columns), target=columns[0]
        ),
    )
    model.metadata_props.add(key=DESCRIPTION, value=description)
    check_valid(model)
    _check(model, forecaster, "to ONNX")
    return model


def _add_scaling(graph: GraphBuilder, forecaster: Forecaster) -> tuple[str, str, str]:
    """Add what `Scaler.scale_windows` does; the names of its result, and of what the target is scaled by."""
    scaler = forecaster.scaler
    if scaler.kind == "last":
        ends = [
            graph.store(f"last.{name}", np.asarray([at])) for name, at in (("start", -1), ("end", 2**31), ("axis", 1))
        ]
        graph.add("Slice", ["windows", *ends], ["windows.last"])  # (B, 1, F)
        level_of_all, unit_of_all = "windows.last", graph.store("change_std", np.asarray(scaler.change_std))
        ends = [
            graph.store(f"level.{name}", np.asarray(at)) for name, at in (("start", [0]), ("end", [1]), ("axis", [2]))
        ]
        graph.add("Slice", ["windows.last", *ends], ["level.all"])  # (B, 1, 1)
        level = graph.add("Squeeze", ["level.all", graph.store("level.axes", np.asarray([1, 2]))], ["level"])
        unit = graph.store("unit", np.asarray(scaler.change_std[0]))
    else:
        level_of_all, unit_of_all = (graph.store(name, np.asarray(getattr(scaler, name))) for name in ("mean", "std"))
        level = graph.store("level", np.asarray(scaler.mean[0]))
        unit = graph.store("unit", np.asarray(scaler.std[0]))
    graph.add("Sub", ["windows", level_of_all], ["windows.level"])
    return graph.add("Div", ["windows.level", unit_of_all], ["windows.scaled"]), level, unit


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
        forecaster = build_forecaster(read_gru_layers(proto), _read_linear(proto), description, device)
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


def _read_linear(model: "ModelProto") -> LinearParams:
    nodes = [node for node in model.graph.node if node.op_type == "Gemm"]
    if len(nodes) != 1 or len(nodes[0].input) != 3:
        raise CheckpointError(f"has {len(nodes)} output layers (Gemm nodes); a forecaster of gru-xp has one, with bias")
    stored = StoredTensors(model.graph)
    what = describe_node(nodes[0])
    weight, bias = (
        stored.array(name, f"{label} of {what}") for name, label in zip(nodes[0].input[1:], "BC", strict=True)
    )
    return LinearParams(weight.copy(), bias.copy())


def _check(model: "ModelProto", forecaster: Forecaster, conversion: str) -> None:
    """Refuse a model that does not predict what the forecaster does."""

    def predict(windows: HostArray) -> HostArray:
        results = run_model(model, {"windows": windows})
        if len(results) != 1 or results[0].dtype != np.float64:
            got = ", ".join(str(result.dtype) for result in results)
            raise CheckpointError(f"{conversion}: the model gives {got}; a forecaster's gives one array of float64")
        return results[0]

    check_forecaster(forecaster, predict, conversion, dtype="float32")
