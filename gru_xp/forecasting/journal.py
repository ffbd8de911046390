"""A journal: results of tasks in a file, line by line as they come, so that a second call continues where one stopped.

The first line says what the results are of, and each of the others has one of them, in JSON. A line is on the disk
before the next task is waited for. The last line may be cut short, by a kill or a full disk, and is done again then.
"""

import json
import os
from collections.abc import Mapping
from typing import Any

from gru_xp.errors import CheckpointError, printable
from gru_xp.training.files import check_path, replace_file
from gru_xp.training.strict_json import check_fields, read_json, shortened

FORMAT, VERSION = "gru-xp journal", 1


class Journal:
    """The results that are in a file, to which others are added.

    Parameters
    ----------
    path
        The file. One that exists must be a journal of the same tasks.
    about
        What the results depend on, by name, as JSON holds it: settings, data, versions.

    Attributes
    ----------
    results : dict
        Results by key, as JSON holds them.

    Raises
    ------
    ArgumentError
        The path is neither a string nor an os.PathLike.
    CheckpointError
        The file cannot be read or written, or is no journal, or one of other tasks; it stays as it is.
    """

    def __init__(self, path: str | os.PathLike[str], about: Mapping[str, Any]) -> None:
        self.path = check_path(path)
        self.results: dict[str, Any] = {}
        first = {"format": FORMAT, "format_version": VERSION, "about": json.loads(json.dumps(dict(about)))}
        try:
            content = self.path.read_bytes() if self.path.exists() else b""
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"{printable(str(path), 1000)}: cannot be read ({getattr(error, 'strerror', None) or error})"
            ) from error
        whole, _, cut = content.rpartition(b"\n")
        if whole:
            self._read(whole.split(b"\n"), first)
        elif content:
            raise self._refused("is no journal of results")
        else:
            replace_file(self.path, json.dumps(first).encode() + b"\n")
        if cut:
            self._change(lambda file: file.truncate(len(content) - len(cut)))

    def add(self, key: str, result: Any) -> None:
        """Append a result, and see that it is on the disk.

        Raises
        ------
        CheckpointError
            The file cannot be written.
        """
        line = json.dumps({"key": key, "result": result}).encode() + b"\n"
        self._change(lambda file: (file.seek(0, os.SEEK_END), file.write(line)))
        self.results[key] = result

    def _change(self, change: Any) -> None:
        try:
            with self.path.open("r+b") as file:
                change(file)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise self._refused(f"cannot be written ({error.strerror or error})") from error

    def _read(self, lines: list[bytes], first: dict[str, Any]) -> None:
        try:
            kinds: dict[str, Any] = {"format": str, "format_version": int, "about": dict}
            held = check_fields("the first line", read_json(lines[0].decode()), kinds)
            if held["format"] != FORMAT:
                raise ValueError(f"its format is {shortened(held['format'])}")
        except ValueError as error:
            raise self._refused(f"is no journal of results ({printable(str(error), 200)})") from error
        if held["format_version"] != VERSION:
            raise self._refused(f"is a journal of format version {held['format_version']}, not {VERSION}")
        if (change := _difference(held["about"], first["about"])) is not None:
            raise self._refused(f"holds results of another call: {change}")
        for number, line in enumerate(lines[1:], 2):
            try:
                entry = check_fields("the line", read_json(line.decode()), {"key": str, "result": dict})
            except ValueError as error:
                raise self._refused(f"is damaged in line {number} ({printable(str(error), 200)})") from error
            self.results[entry["key"]] = entry["result"]

    def _refused(self, why: str) -> CheckpointError:
        advice = "; delete it to start again, or use another file"
        return CheckpointError(f"{printable(str(self.path), 1000)}: {why}{advice}")


def _difference(before: Mapping[str, Any], now: Mapping[str, Any], within: str = "") -> str | None:
    """The first thing in which two descriptions differ, in words; None if they are the same."""
    for name in [*now, *(name for name in before if name not in now)]:
        one, other = before.get(name), now.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            if (found := _difference(one, other, f"{within}{name} ")) is not None:
                return found
        elif one != other:
            return f"{within}{name} was {shortened(one)} and is {shortened(other)}"
    return None
