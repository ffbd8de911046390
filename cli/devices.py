"""``gru-xp devices``."""

import click

from .messages import print_json, print_table
from .options import Command, json_option


@click.command(cls=Command, epilog="Example: gru-xp devices --json")
@json_option
def devices(as_json: bool) -> None:
    """List the devices found, with versions, and the reason if there is no CUDA device."""
    from gru_xp.devices.inventory import inventory

    found = inventory()
    if as_json:
        print_json(found)
        return
    cpu, cuda = found["cpu"], found["cuda"]
    rows = [("cpu", f"{cpu['name']}, {cpu['threads']} thread(s), NumPy {cpu['numpy']}, {', '.join(cpu['blas'])}")]
    if cuda["problem"] is not None:
        rows.append(("cuda", f"none: {cuda['problem']}"))
    for device in cuda["devices"]:
        rows.append(
            (
                device["device"],
                f"{device['name']}, {device['memory_gib']:.0f} GiB, compute capability {device['compute_capability']}, "
                f"CuPy {cuda['cupy']}, CUDA runtime {cuda['runtime']}, driver {cuda['driver']}",
            )
        )
    rows.append(("auto", found["auto"]))
    print_table("Devices", ("device", "description"), rows, left=2)
