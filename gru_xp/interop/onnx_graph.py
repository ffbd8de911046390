"""What the conversions to and from ONNX share: reading, building and running models."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from gru_xp.errors import CheckpointError, printable
from gru_xp.interop.gates import HostArray
from gru_xp.interop.peers import import_peer, reason

if TYPE_CHECKING:
    from onnx import ModelProto

ModelSource: TypeAlias = "str | os.PathLike[str] | ModelProto"

OPSET, IR_VERSION = 22, 10
"""Of the models that are written."""

OLDEST_OPSET = 7
"""Of the models that are read: onnxruntime runs none that is older."""

STANDARD_DOMAINS = ("", "ai.onnx")

LARGEST_FILE = 2**30
"""Bytes. Protocol buffers end at 2 GiB, and a model is in memory several times while it is checked."""


def import_onnx() -> Any:
    """The package onnx, with those of its modules that are used here."""
    for module in ("onnx.checker", "onnx.helper", "onnx.numpy_helper"):
        import_peer(module)
    return import_peer("onnx")


def quoted(text: str) -> str:
    """Text from a model, for a message of one line."""
    return repr(text if len(text) <= 60 else text[:57] + "...")


@contextmanager
def naming(model: ModelSource) -> Iterator[None]:
    """Put the file's name before the message of a CheckpointError."""
    try:
        yield
    except CheckpointError as error:
        if isinstance(model, str | os.PathLike):
            raise CheckpointError(f"{os.fspath(model)}: {error}") from error
        raise


# --- reading ----------------------------------------------------------------------------------------------------


def read_model(model: ModelSource) -> "ModelProto":
    """A model that onnx finds valid, and that is whole: nothing of it lies in other files.

    Raises
    ------
    CheckpointError
        It is no such model.
    """
    onnx = import_onnx()
    if isinstance(model, str | os.PathLike):
        proto = _parse(_read_bytes(Path(model)))
    elif isinstance(model, onnx.ModelProto):
        proto = model
    else:
        raise CheckpointError(f"the model is a {type(model).__name__}; it must be a path or an onnx.ModelProto")
    if not proto.graph.node:
        raise CheckpointError("not an ONNX model; it has no nodes")
    if proto.functions:
        raise CheckpointError(
            "a model with functions of its own is not read; resolve them by onnx.inliner.inline_local_functions"
        )
    for tensor in _tensors(proto.graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise CheckpointError(
                f"tensor {quoted(tensor.name)} lies in another file, which is not opened; save the model as one file"
            )
    if not all(isinstance(text, str) for text in _texts(proto)):  # protocol buffers give what is no Unicode as bytes
        raise CheckpointError("a damaged ONNX model, with names that are no text; use another copy")
    names = [tensor.name for tensor in proto.graph.initializer]
    if len(set(names)) < len(names):
        raise CheckpointError("a damaged ONNX model, which stores two tensors under one name")
    try:
        onnx.checker.check_model(proto)
    except Exception as error:  # ValidationError, and others for broken contents
        raise CheckpointError(f"not a valid ONNX model ({reason(error)})") from error
    if opset_of(proto) < OLDEST_OPSET:
        raise CheckpointError(
            f"opset {opset_of(proto)} is too old; convert the model by onnx.version_converter to {OPSET}"
        )
    return proto


def _read_bytes(path: Path) -> bytes:
    try:
        if not path.is_file():
            what = "is a directory" if path.is_dir() else "does not exist"
            raise CheckpointError(f"{what}; give the path of an ONNX model")
        if path.stat().st_size > LARGEST_FILE:
            raise CheckpointError(f"larger than {LARGEST_FILE:,} bytes; models of that size are not read")
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot be read ({error.strerror or error})") from error


def _parse(data: bytes) -> "ModelProto":
    onnx = import_onnx()
    try:
        proto: ModelProto = onnx.ModelProto.FromString(data)
    except Exception as error:  # DecodeError
        raise CheckpointError("not an ONNX model, or a damaged one; use another copy") from error
    return proto


def _texts(model: "ModelProto") -> Iterator[Any]:
    """What a model calls its parts, and what it says of itself."""
    for entry in model.metadata_props:
        yield from (entry.key, entry.value)
    for node in model.graph.node:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        yield from (attribute.name for attribute in node.attribute)
    for named in (*_tensors(model.graph), *model.graph.input, *model.graph.output):
        yield named.name


def _tensors(graph: Any) -> Iterator[Any]:
    """All stored tensors of a graph, wherever they stand."""
    yield from graph.initializer
    sparse = [*graph.sparse_initializer]
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            sparse += [attribute.sparse_tensor, *attribute.sparse_tensors]
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)
    for tensor in sparse:
        yield from (tensor.values, tensor.indices)


def opset_of(model: "ModelProto") -> int:
    """Version of the standard operators."""
    return max((entry.version for entry in model.opset_import if entry.domain in STANDARD_DOMAINS), default=0)


def is_standard(node: Any, *ops: str) -> bool:
    """Whether a node is one of these standard operators."""
    return node.domain in STANDARD_DOMAINS and node.op_type in ops


def is_float_cast(node: Any) -> bool:
    """Whether a node makes numbers float32 or float64."""
    onnx = import_onnx()
    return is_standard(node, "Cast") and attributes_of(node)["to"] in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE)


def attributes_of(node: Any) -> dict[str, Any]:
    """A node's attributes, by name; texts are decoded."""
    onnx = import_onnx()

    def plain(value: Any) -> Any:
        return value.decode(errors="replace") if isinstance(value, bytes) else value

    values = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    return {
        name: plain(value) if isinstance(value, bytes) or not isinstance(value, Sequence) else [*map(plain, value)]
        for name, value in values.items()
    }


def describe_node(node: Any) -> str:
    """What to call a node in a message."""
    return f"{printable(node.op_type, 40)} node {quoted(node.name or next(filter(None, node.output), ''))}"


class StoredTensors:
    """The numbers that a valid graph holds, by name."""

    def __init__(self, graph: Any) -> None:
        self._onnx = import_onnx()
        self._initializers = {tensor.name: tensor for tensor in graph.initializer}
        self._producers = {name: node for node in graph.node for name in node.output if name}

    def producer(self, name: str) -> Any:
        """The node that computes `name`; None for inputs and stored numbers."""
        return self._producers.get(name)

    def holds(self, name: str) -> bool:
        """Whether `name` is stored rather than computed."""
        return self._find(name) is not None

    def array(self, name: str, what: str) -> HostArray:
        """The numbers called `name`, as they are stored.

        Parameters
        ----------
        name
            What the graph calls them.
        what
            What they are, for messages.

        Raises
        ------
        CheckpointError
            They are computed rather than stored, or damaged.
        """
        tensor = self._find(name)
        if tensor is None:
            node = self.producer(name)
            how = "an input of the model" if node is None else f"computed, by {describe_node(node)}"
            raise CheckpointError(f"{what} is {how}, not stored; export the model with constants folded")
        try:
            array: HostArray = self._onnx.numpy_helper.to_array(tensor)
        except Exception as error:  # a wrong length, an unknown type
            raise CheckpointError(f"{what} is damaged ({reason(error)}); use another copy") from error
        return array

    def _find(self, name: str) -> Any:
        """The stored tensor behind a name, seen through Identity and through casts of floats; None if there is none."""
        while name not in self._initializers:
            node = self.producer(name)
            if node is None or not (is_standard(node, "Constant", "Identity") or is_float_cast(node)):
                return None
            if node.op_type == "Constant":
                return attributes_of(node).get("value")
            name = node.input[0]
        return self._initializers[name]


# --- building ---------------------------------------------------------------------------------------------------


class GraphBuilder:
    """A graph that grows node by node."""

    def __init__(self) -> None:
        self._onnx = import_onnx()
        self._nodes: list[Any] = []
        self._tensors: list[Any] = []

    def add(self, op: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> str:
        """A node; the name of its first result."""
        self._nodes.append(self._onnx.helper.make_node(op, inputs, outputs, name=outputs[0], **attributes))
        return outputs[0]

    def add_copy(self, node: Any) -> None:
        """A node as another graph has it."""
        self._nodes.append(node)

    def cast(self, name: str, dtype: str, output: str) -> str:
        """Numbers as those of another type, one of ONNX' names."""
        return self.add("Cast", [name], [output], to=self._onnx.TensorProto.DataType.Value(dtype))

    def store(self, name: str, array: Any) -> str:
        """Stored numbers; their name."""
        self._tensors.append(self._onnx.numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def store_weights(self, name: str, array: HostArray) -> str:
        """Stored numbers to compute with in float32, whatever they are stored in; the name of what to compute with."""
        self.store(name, array)
        return name if array.dtype == np.float32 else self.cast(name, "FLOAT", f"{name}.float")

    def model(
        self,
        name: str,
        inputs: Mapping[str, tuple[str, Sequence[int | str]]],
        outputs: Mapping[str, tuple[str, Sequence[int | str]]],
        *,
        doc: str = "",
        opset: int = OPSET,
    ) -> "ModelProto":
        """The whole model; `inputs` and `outputs` map names to ONNX types and shapes."""
        helper = self._onnx.helper

        def described(values: Mapping[str, tuple[str, Sequence[int | str]]]) -> list[Any]:
            types = self._onnx.TensorProto.DataType
            return [helper.make_tensor_value_info(key, types.Value(t), shape) for key, (t, shape) in values.items()]

        graph = helper.make_graph(self._nodes, name, described(inputs), described(outputs), self._tensors)
        model: ModelProto = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", opset)],
            ir_version=IR_VERSION,
            producer_name="gru-xp",
            producer_version=version("gru-xp"),
            doc_string=doc,
        )
        return model


def to_bytes(model: "ModelProto") -> bytes:
    """The model as a file holds it.

    Raises
    ------
    CheckpointError
        It is too large for one.
    """
    size = model.ByteSize()
    if size > LARGEST_FILE:
        raise CheckpointError(f"the model takes {size:,} bytes; ONNX models of more than {LARGEST_FILE:,} are not made")
    data: bytes = model.SerializeToString()
    return data


# --- running ----------------------------------------------------------------------------------------------------


def check_valid(model: "ModelProto") -> None:
    """CheckpointError unless onnx finds the model valid, types and shapes included."""
    onnx = import_onnx()
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # ValidationError, InferenceError and others
        raise CheckpointError(f"not a valid ONNX model ({reason(error)})") from error


def run_model(model: "ModelProto", inputs: Mapping[str, HostArray]) -> list[HostArray]:
    """What onnxruntime makes of a model on the CPU: all its outputs.

    onnx' own evaluator will not do: it ignores lengths and activations.

    Raises
    ------
    CheckpointError
        It does not run it.
    """
    onnxruntime = import_peer("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong comes as an exception, too
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(to_bytes(model), options, providers=["CPUExecutionProvider"])
        results: list[HostArray] = session.run(None, dict(inputs))
    except CheckpointError:
        raise
    except Exception as error:  # onnxruntime has a class for every kind of failure
        raise CheckpointError(f"onnxruntime does not run the model ({reason(error)})") from error
    return results
