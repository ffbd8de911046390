"""Which mutants of ``gru_xp/nn`` to run with mutmut by hand, and how they ended; README.md in this folder says how."""

import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from mutmut.mutation.file_mutation import mutate_file_contents
from mutmut.stats import status_by_exit_code

from benchmarks.report import json_option, package_version, save_json


def modules() -> Iterator[tuple[Path, list[str]]]:
    """Files of the maths, and the names of their mutants."""
    for path in sorted(Path("gru_xp/nn").glob("*.py")):
        names = mutate_file_contents(str(path), path.read_text(encoding="utf-8")).mutant_names
        if names:
            yield path, [f"{'.'.join(path.with_suffix('').parts)}.{name}" for name in names]


def outcome(path: Path, names: list[str], sample: list[str]) -> dict[str, Any]:
    """A row of the result; who has no test, or crashed, has survived."""
    codes = json.loads((Path("mutants") / f"{path}.meta").read_text(encoding="utf-8"))["exit_code_by_key"]
    statuses = {name: status_by_exit_code[codes[name]] for name in sample}
    count = Counter(statuses.values())
    if count["not checked"]:
        raise click.ClickException(f"{count['not checked']} mutants of {path} were not run")
    survivors = [name for name, status in statuses.items() if status not in ("killed", "timeout")]
    return {
        "module": path.name,
        "mutants": len(names),
        "run": len(sample),
        "killed": len(sample) - len(survivors),
        "killed_by_timeout": count["timeout"],
        "survived": len(survivors),
        "survivors": survivors,
    }


@click.command()
@click.option("--size", type=click.IntRange(min=1), default=100, show_default=True, help="Mutants a file, at most.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the sample.")
@json_option
def mutation(size: int, seed: int, json_file: Path | None) -> None:
    """Print the names of a random sample of mutants; with --json, keep how they ended, after they were run."""
    samples = {path: sorted(random.Random(seed).sample(names, min(size, len(names)))) for path, names in modules()}
    if json_file is None:
        click.echo(" ".join(name for sample in samples.values() for name in sample))
        return
    rows = [outcome(path, names, samples[path]) for path, names in modules()]
    totals = {key: sum(row[key] for row in rows) for key, value in rows[0].items() if isinstance(value, int)}
    settings = {"mutmut": package_version("mutmut"), "size": size, "seed": seed}
    save_json(json_file, "mutation", settings, rows, {**totals, "kill_rate": totals["killed"] / totals["run"]})


if __name__ == "__main__":
    mutation()
