"""``gru-xp devices``."""

from textwrap import wrap
from typing import Any

import click

from .messages import print_json, print_table
from .options import Command, json_option

TEXT_WIDTH = 66
"""Of descriptions, so that the table fits 80 columns."""


@click.command(cls=Command, epilog="Example: gru-xp devices --json")
@json_option
def devices(as_json: bool) -> None:
    """List the available devices, with versions.

    For each CUDA device, the fast paths that pass a self-check are listed, and the time that it took. If there is no
    CUDA device, the reason is shown.
    """
    from gru_xp.devices.inventory import inventory

    found = inventory()
    if as_json:
        print_json(found)
        return
    cpu, cuda = found["cpu"], found["cuda"]
    rows = [("cpu", f"{cpu['name']}, {cpu['threads']} thread(s), NumPy {cpu['numpy']}, {', '.join(cpu['blas'])}")]
    if cuda["problem"] is not None:
        rows.append(("cuda", f"not available: {cuda['problem']}"))
    for device in cuda["devices"]:
        what = "no properties to be had"
        if device["name"] is not None:
            capability = device["compute_capability"]
            what = f"{device['name']}, {device['memory_gib']:.0f} GiB, compute capability {capability}"
        runtime, driver = (cuda[part] or "unknown" for part in ("runtime", "driver"))
        rows += [
            (device["device"], f"{what}, CuPy {cuda['cupy']}, CUDA runtime {runtime}, driver {driver}"),
            *(("", text) for text in _self_check(device["check"])),
        ]
    rows.append(("auto", found["auto"]))
    lines = [
        (name if number == 0 else "", line)
        for name, text in rows
        for number, line in enumerate(wrap(text, TEXT_WIDTH, break_long_words=False, break_on_hyphens=False))
    ]
    print_table("Devices", ("device", "description"), lines, left=2)


def _self_check(check: dict[str, Any] | None) -> list[str]:
    """Which fast paths of a CUDA device are on and off, and how long that took to find out."""
    if check is None:
        return ["fast paths: off (GRU_XP_PLAIN is set)"]
    if check["problem"] is not None:
        return [f"not usable: {check['problem']}"]
    paths = check["paths"].values()
    on = ", ".join(
        path["name"] + " (not checked, as there is no memory for cuBLAS)" * (not path["is_checked"])
        for path in paths
        if path["problem"] is None
    )
    off = [f"off: {path['name']} ({path['problem']})" for path in paths if path["problem"] is not None]
    took = f"self-check: {check['seconds']:.1f} s, of which {check['compile_seconds']:.1f} s compiling"
    return [f"fast paths: {on or 'none'}", *off, took]
