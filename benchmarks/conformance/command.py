"""``conformance``: run all comparisons and write the page."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

import click

from benchmarks.conformance.cases import PEERS, Peer
from benchmarks.conformance.page import KINDS, Section, difference_text, page
from benchmarks.report import describe_machine, file_option, grouped, json_option, package_version, save_json
from gru_xp.cli.messages import note, print_table
from gru_xp.cli.options import Command

PAGE = Path(__file__).resolve().parents[1] / "conformance.md"


def run_peer(peer: Peer) -> Section:
    """Run all comparisons with a library, if it is installed."""
    missing = [_distribution(package) for package in peer.missing()]
    versions = {_distribution(package): package_version(_distribution(package)) for package in peer.packages}
    section = Section(peer, {name: version for name, version in versions.items() if version}, missing)
    if missing:
        note(f"{peer.name}: skipped, missing here: {', '.join(missing)}")
        return section
    cases = peer.cases()
    note(f"{peer.name}: {len(cases)} cases")
    for case in cases:
        section.run(case)
    return section


def _distribution(package: str) -> str:
    """Name of a package in the package index."""
    return package.replace("_", "-")


@click.command(cls=Command)
@click.option(
    "--peer",
    "keys",
    multiple=True,
    type=click.Choice([peer.key for peer in PEERS]),
    help="Library to compare with; repeat the option for several.  [default: all]",
)
@file_option("--page", "page_file", "Write the page to FILE.  [default: benchmarks/conformance.md; with --peer, none]")
@json_option
def conformance(keys: tuple[str, ...], page_file: Path | None, json_file: Path | None) -> None:
    """Compare our GRU with PyTorch, Keras, ONNX and onnxruntime, and CUDA with the CPU.

    Shows the largest differences of outputs and gradients, relative to the largest element of each array, and fails
    if a difference exceeds its limit.
    """
    peers = [peer for peer in PEERS if not keys or peer.key in keys]
    sections = [run_peer(peer) for peer in peers]
    cells = list(grouped(((section.peer.name,), row.cells()) for section in sections for row in section.rows))
    if cells:
        header = ("library", "variant", "precision", "cases", *KINDS, "limit")
        print_table("Largest differences, rounded up", header, cells, left=3)
    if page_file is None and not keys:
        page_file = PAGE
    if page_file is not None:
        described = describe_machine()
        text = page(sections, described["machine"], described["versions"], f"{datetime.now().astimezone():%Y-%m-%d}")
        try:
            page_file.write_text(text, encoding="utf-8")
        except OSError as error:
            raise click.ClickException(f"{page_file} cannot be written ({error.strerror or error})") from error
        note(f"written to {page_file}")
    rows = [{"peer": section.peer.key, **asdict(row), "ok": row.ok} for section in sections for row in section.rows]
    settings = {
        "peers": {section.peer.key: section.versions for section in sections},
        "missing": {section.peer.key: section.missing for section in sections if section.missing},
    }
    save_json(json_file, "conformance", settings, rows, {"cases": sum(section.cases for section in sections)})
    check(sections)


def check(sections: Sequence[Section]) -> None:
    """Raise ClickException if a row exceeds its limit, or if nothing was compared."""
    wrong = [(section, row) for section in sections for row in section.rows if not row.ok]
    if wrong:
        section, row = wrong[0]
        found = ", ".join(
            f"{kind} differ by {difference_text(number, row.limit).strip('*')}"
            for kind, number in row.largest.items()
            if not number <= row.limit
        )
        more = f"; so do {len(wrong) - 1} other rows" if len(wrong) > 1 else ""
        raise click.ClickException(
            f"{section.peer.name}, {row.variant}, {row.dtype}: "
            f"{row.problems[0] if row.problems else f'{found}, more than {row.limit:g}'}{more}"
        )
    if not any(section.cases for section in sections):
        needed = sorted({package for section in sections for package in section.missing})
        raise click.ClickException(f"nothing was compared; missing here: {', '.join(needed)}")
