"""Model files: host arrays and their description in one safetensors file, which any device loads."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import safetensors
import safetensors.numpy

from gru_xp.devices import Device, to_device, to_host
from gru_xp.errors import CheckpointError
from gru_xp.nn.network import NetworkParams
from gru_xp.nn.ops import Array
from gru_xp.nn.params import GRUParams, LinearParams, named_arrays
from gru_xp.nn.stack import Layers
from gru_xp.training.files import replace_file

FORMAT = "gru-xp"
FORMAT_VERSION = 2
"""Version 1 had one GRU layer, whose parameters it called ``gru.weight_ih`` and so on."""


def save_checkpoint(path: str | os.PathLike[str], params: NetworkParams, metadata: dict[str, Any]) -> None:
    """Write parameters and a description to a file, all of it or nothing.

    Parameters
    ----------
    path
        The file; one that exists is replaced.
    params
        The parameters, on any device.
    metadata
        Anything that JSON can hold.

    Raises
    ------
    CheckpointError
        The file cannot be written, or does not read back as it was written.
    """
    # safetensors writes arrays that are not C-contiguous wrongly, without a word
    arrays = {name: to_host(array).copy(order="C") for name, array in named_arrays(params)}
    header = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "sha256": _checksum(arrays, json.dumps(metadata)),
        "metadata": json.dumps(metadata),
    }

    def is_whole(partial: Path) -> bool:
        written, _ = _read(partial)
        return all(written[name].tobytes() == array.tobytes() for name, array in arrays.items())

    content = safetensors.numpy.save(arrays, metadata=header)
    replace_file(path, lambda partial: partial.write_bytes(content), is_whole)


def load_checkpoint(path: str | os.PathLike[str], device: Device) -> tuple[NetworkParams, dict[str, Any]]:
    """Read what `save_checkpoint` wrote, onto any device.

    Raises
    ------
    CheckpointError
        There is no such file, or it is not a gru-xp model that this version can read.
    """
    arrays, header = _read(Path(path))
    if header.get("format") != FORMAT:
        raise CheckpointError(f"{path}: a safetensors file, but not a gru-xp model")
    version = header.get("format_version")
    if version not in ("1", str(FORMAT_VERSION)):
        raise CheckpointError(f"{path}: format version {version}; this gru-xp reads versions up to {FORMAT_VERSION}")
    if "sha256" in header and header["sha256"] != _checksum(arrays, header.get("metadata", "")):
        raise CheckpointError(f"{path}: a gru-xp model that is damaged; take another copy")
    try:
        metadata = json.loads(header["metadata"])
        gru = (
            ((GRUParams(*_take(arrays, "gru", GRUParams._fields, device)),),)
            if version == "1"
            else _layers(arrays, device)
        )
        params = NetworkParams(gru, LinearParams(*_take(arrays, "linear", LinearParams._fields, device)))
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{path}: a gru-xp model with a part missing or damaged ({error})") from error
    return params, metadata


def _checksum(arrays: dict[str, Array], metadata: str) -> str:
    digest = hashlib.sha256(metadata.encode())
    for name in sorted(arrays):
        digest.update(name.encode() + arrays[name].tobytes())
    return digest.hexdigest()


def _layers(arrays: dict[str, Array], device: Device) -> Layers:
    def count(prefix: str) -> int:
        """How many parts there are whose numbers follow the prefix."""
        return len({name.removeprefix(prefix).partition(".")[0] for name in arrays if name.startswith(prefix)})

    layers = tuple(
        tuple(
            GRUParams(*_take(arrays, f"gru.{layer}.{direction}", GRUParams._fields, device))
            for direction in range(count(f"gru.{layer}."))
        )
        for layer in range(count("gru."))
    )
    if {len(layer) for layer in layers} not in ({1}, {2}):
        raise ValueError("its layers do not have one direction each, or two")
    return layers


def _take(arrays: dict[str, Array], layer: str, fields: tuple[str, ...], device: Device) -> list[Array]:
    return [to_device(arrays[f"{layer}.{field}"], device) for field in fields]


def _read(path: Path) -> tuple[dict[str, Array], dict[str, str]]:
    try:
        if not path.is_file():
            what = "is a directory" if path.is_dir() else "does not exist"
            raise CheckpointError(f"{path}: {what}; a model file is called model.safetensors")
        with safetensors.safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except CheckpointError:
        raise
    except Exception as error:  # damaged files raise SafetensorError, KeyError and others
        raise CheckpointError(f"{path}: not a model file ({error})") from error
