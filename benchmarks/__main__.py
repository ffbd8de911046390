"""The command line: ``python -m benchmarks COMMAND``, each of which measures one thing."""

import sys

try:
    import click

    from benchmarks.accuracy.command import accuracy
    from benchmarks.article import article
    from benchmarks.conformance.command import conformance
    from benchmarks.defaults import defaults
    from benchmarks.gpu import gpu
    from benchmarks.infer import infer
    from benchmarks.layer import layer
    from benchmarks.reading import reading
    from benchmarks.scaling import scaling
    from benchmarks.slow_tests import slow_tests
    from benchmarks.train import train
    from benchmarks.variants import variants
    from benchmarks.zero_shot.command import zero_shot
    from gru_xp.cli.options import run
except ModuleNotFoundError as error:
    sys.exit(
        f'Error: there is no module {error.name}; run from the repository\'s root, after: pip install -e ".[test]"'
    )


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def benchmarks() -> None:
    """Measure gru-xp: speed, agreement and accuracy beside other libraries, the article's experiment, and defaults.

    Run from the repository's root, after: pip install -e ".[test]"
    """


for command in (
    train,
    layer,
    infer,
    variants,
    gpu,
    scaling,
    article,
    defaults,
    accuracy,
    zero_shot,
    reading,
    conformance,
    slow_tests,
):
    benchmarks.add_command(command)


if __name__ == "__main__":
    run(benchmarks, "python -m benchmarks")
