import shlex

import click
import pytest

from gru_xp import cli as app_package
from gru_xp.cli.options import Command, Setting
from gru_xp.errors import MemoryLimitError
from gru_xp.forecasting import Forecaster
from gru_xp.forecasting.presets import ARTICLE, PRESETS

pytestmark = pytest.mark.compat

cli = app_package.cli
COMMANDS = sorted(cli.commands)
OPTIONS = [
    (command, parameter)
    for command in COMMANDS
    for parameter in cli.commands[command].params
    if isinstance(parameter, click.Option)
]


def parse(*arguments):
    """The values that a command gets, without running it."""
    group = cli.make_context("gru-xp", list(arguments))
    name, command, rest = cli.resolve_command(group, list(arguments))  # the group has no options before the command
    return command.make_context(name, rest, parent=group).params


def default_of(option):
    """What an option is where it is not given."""
    return PRESETS["recipe"][option.name] if isinstance(option, Setting) else option.default


# --- help -------------------------------------------------------------------------------------------------------


def test_help_ends_with_an_example_that_works(app, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for command in (None, *COMMANDS):
        arguments = [] if command is None else [command]
        outcome = app(*arguments, "--help")
        assert (outcome.code, outcome.err) == (0, ""), command
        assert app(*arguments, "-h") == outcome, command
        last = outcome.out.strip().splitlines()[-1].strip()
        assert last.startswith("Example: gru-xp "), command
        words = shlex.split(last.removeprefix("Example: gru-xp "))
        if ">" in words:
            words = words[: words.index(">")]
        assert words[0] == (command or words[0])
        assert parse(*words), command


def test_help_explains_every_option_and_its_default(app):
    for command in COMMANDS:
        assert cli.commands[command].help.strip(), command
        text = " ".join(app(command, "--help").out.split())
        for owner, option in OPTIONS:
            if owner != command:
                continue
            case = f"{command} {option.opts[-1]}"
            assert option.opts[-1] in text, case
            assert option.help.strip().endswith((".", "]")), case
            default = default_of(option)
            if not option.is_flag and isinstance(default, str | int | float):
                assert f"[default: {default}" in text.replace("; x", " x").replace("(", "["), case


# --- names and defaults -----------------------------------------------------------------------------------------


VALUES = {
    "quantiles": "0.25",
    "device": "cuda:1",
    "date_format": "%d/%m/%Y",
    "encoding": "cp1252",
    "freq": "D",
    "where": "store=1",
    "out": "all.csv",
    "plot": "folds.svg",
    "level": "80",
    "levels": "80",
}


def test_options_can_be_written_with_underscores():
    for command, option in OPTIONS:
        arguments = {
            "inspect": ["own.csv"],
            "train": ["own.csv"],
            "evaluate": ["run"],
            "backtest": ["own.csv"],
            "forecast": ["run"],
            "explain": ["run"],
            "export": ["run", "model.onnx"],
            "import": ["model.onnx", "--out", "run"],
        }.get(command, [])
        if option.is_flag:
            value = []
        elif isinstance(option.type, click.Choice):
            value = [option.type.choices[-1]]
        elif option.name in VALUES:
            value = [VALUES[option.name]]
        else:
            value = ["0.5" if isinstance(option.type, click.FloatRange) else "3"]
        for hyphens in option.secondary_opts if default_of(option) is True else option.opts:
            if hyphens.startswith("--"):
                underscores = "--" + hyphens[2:].replace("-", "_")
                given = parse(command, *arguments, underscores, *value)
                assert given == parse(command, *arguments, hyphens, *value), (command, hyphens)
                assert given != parse(command, *arguments), (command, hyphens)


def test_names_of_columns_and_files_keep_their_underscores(app, quick, tmp_path):
    lines = [f"{1900 + row},{row % 7},0" for row in range(60)]
    (tmp_path / "my_own.csv").write_text("\n".join(["Year,my_column,my-column", *lines]))
    outcome = app("train", "my_own.csv", "--target", "my_column", *quick, "--out", "my_run")
    assert outcome.code == 0
    assert "my_own.csv, my_column" in outcome.out
    assert (tmp_path / "my_run").is_dir()


def test_defaults_are_those_of_the_library(app):
    settings = Forecaster().settings()
    assert settings.items() <= parse("train", "own.csv").items()
    assert settings.items() <= (parse("backtest", "own.csv") | {"horizon": 1, "refit": False}).items()
    for arguments in (("own.csv", "--preset", "article"), ("--preset", "article", "own.csv")):
        for command in ("train", "backtest"):
            assert (settings | ARTICLE).items() <= (parse(command, *arguments) | {"horizon": 1, "refit": False}).items()
    assert parse("train", "own.csv", "--patience", "0")["patience"] == 0
    for command in ("train", "backtest"):
        text = " ".join(app(command, "--help").out.split())
        for default in ("auto; article: 10]", "guard; article: no-guard]", "64; article: all]", "x>0; article: 1e-05]"):
            assert default in text, command


# --- usage that is wrong ----------------------------------------------------------------------------------------

OF_A_GRU = (
    *(["--refit"], ["--validation-ratio", "0.2"], ["--patches", "8"], ["--hidden-size", "32"], ["--num-layers", "1"]),
    *(["--bidirectional"], ["--dropout", "0"], ["--recurrent-dropout", "0"], ["--zoneout", "0"], ["--reset", "after"]),
    *(["--num-epochs", "3"], ["--num-steps", "3"], ["--loss", "mae"], ["--huber-delta", "1"], ["--quantile", "0.5"]),
    *(["--learning-rate", "1"], ["--optimizer", "sgd"], ["--beta1", "0.9"], ["--beta2", "0.9"]),
    *(["--weight-decay", "0"], ["--schedule", "cosine"], ["--warmup", "0"], ["--reduction", "sum"]),
    *(["--batch-size", "all"], ["--keep-every", "3"], ["--clip-norm", "none"], ["--patience", "0"]),
    *(["--checkpoint-every", "3"], ["--checkpoint-seconds", "3"], ["--verify-cpu"]),
)

WRONG = [
    (["--colour"], ["--colour"]),
    (["--hidden_sizes", "3"], ["hidden-sizes"]),
    (["--optimizer", "newton"], ["'adam', 'adamw', 'sgd', 'momentum'"]),
    (["--reset", "never"], ["'before', 'after'"]),
    (["--scaling", "log"], ["'last', 'standard', 'window', 'robust', 'none'"]),
    (["--dtype", "float16"], ["'float32', 'float64'"]),
    (["--reduction", "max"], ["'mean', 'sum'"]),
    (["--device", "gpu"], ["'gpu'", "auto", "cpu", "cuda", "cuda:N"]),
    (["--device", "cuda:x"], ["'cuda:x'"]),
    (["--device", ""], ["cuda:N"]),
    (["--num-epochs", "0"], ["--num-epochs"]),
    (["--num-epochs", "2.5"], ["--num-epochs"]),
    (["--hidden-size", "0"], ["--hidden-size"]),
    *((["--seq-length", value], [f"'{value}' is not auto or", "at least 1"]) for value in ("-1", "0", "foo")),
    *((["--season", value], [f"'{value}' is not auto, none or", "at least 2"]) for value in ("1", "foo")),
    (["--horizon", "0"], ["--horizon"]),
    (["--patches", "-1"], ["--patches"]),
    *((["--batch-size", value], ["--batch-size", f"'{value}' is not all or", "at least 1"]) for value in ("0", "foo")),
    *((["--learning-rate", value], ["--learning-rate"]) for value in ("0", "fast", "nan", "inf")),
    *((["--clip-norm", value], ["not none or", "above 0"]) for value in ("0", "nan", "inf", "foo")),
    (["--patience", "-1"], ["--patience"]),
    (["--seed", "-1"], ["--seed"]),
    *((["--split-ratio", value], ["--split-ratio"]) for value in ("0", "1.1", "nan")),
    *((["--validation-ratio", value], ["--validation-ratio"]) for value in ("1", "-0.1", "nan")),
    (["--num-layers", "0"], ["--num-layers"]),
    (["--num-layers", "1.5"], ["--num-layers"]),
    (["--bidirectional", "yes"], ["yes"]),
    *((["--num-layers", "2", "--dropout", value], ["--dropout"]) for value in ("1", "-0.1", "nan")),
    *((["--recurrent-dropout", value], ["--recurrent-dropout"]) for value in ("1", "much", "nan")),
    *((["--zoneout", value], ["--zoneout"]) for value in ("1", "nan", "inf")),
    (["--dropout", "0.5"], ["--dropout", "--num-layers 2", "--recurrent-dropout"]),
    (["--dropout", "0.5", "--bidirectional", "--num-layers", "1"], ["--dropout", "--num-layers 2"]),
    (["IBM.csv"], ["IBM.csv"]),
    *((["--model", "ridge", *given], ["--model ridge", given[0]]) for given in OF_A_GRU),
    (["--model", "ridge", "--no-linear-skip"], ["--model ridge", "--linear-skip"]),
    (["--model", "ridge", "--preset", "article"], ["--model ridge", "--linear-skip"]),
    (["--num-steps", "9", "--num-epochs", "9"], ["--num-steps", "--num-epochs"]),
    (["--num-steps", "9", "--patience", "9"], ["--num-steps", "--patience", "--validation-ratio"]),
    (["--refit"], ["--refit", "--validation-ratio"]),
    (["--refit", "--validation-ratio", "0.2", "--verify-cpu"], ["--refit", "--verify-cpu"]),
    (["--huber-delta", "2"], ["--huber-delta", "--loss huber"]),
    (["--quantile", "0.2", "--loss", "mse"], ["--quantile", "--loss quantile"]),
    (["--quantile", "0.2", "--quantile", "0.2"], ["--quantile", "0.2 is given more than once"]),
    (["--weight-decay", "0.2", "--optimizer", "adam"], ["--weight-decay", "--optimizer adamw"]),
    (["--preset", "article", "--beta1", "0.2"], ["--beta1", "--optimizer adam or adamw"]),
    (["--optimizer", "momentum", "--beta2", "0.2"], ["--beta2", "--optimizer adam or adamw"]),
    (["--season", "12", "--seq-length", "11"], ["--season 12", "--seq-length", "--no-linear-skip"]),
]


def test_wrong_usage_exits_with_2(app, unchanged):
    with unchanged():
        for arguments, names in WRONG:
            outcome = app("train", "GOOG.csv", *arguments)
            assert (outcome.code, outcome.out) == (2, ""), arguments
            assert outcome.err.startswith("Usage: gru-xp train"), arguments
            assert all(name in outcome.err.splitlines()[-1] for name in names), (arguments, outcome.err)
            assert "Traceback" not in outcome.err, arguments


def test_an_argument_that_is_missing(app):
    for command, argument in (("inspect", "CSV"), ("train", "CSV"), ("evaluate", "CSV|RUN"), ("forecast", "CSV|RUN")):
        outcome = app(command)
        assert outcome.code == 2, command
        assert f"Missing argument '{argument}'" in outcome.err, command


def test_a_command_that_is_none(app):
    outcome = app("predict")
    assert outcome.code == 2
    assert "No such command 'predict'" in outcome.err


# --- errors -----------------------------------------------------------------------------------------------------


def test_memory_that_is_not_enough_is_one_line():
    def fail(raised):
        raise raised

    for raised, names in (
        (MemoryError("8 GiB"), ["memory", "(8 GiB)"]),
        (MemoryError(), ["memory;"]),
        (MemoryLimitError("use batch_size=8 or keep_every=3"), ["use --batch-size 8 or --keep-every 3"]),
    ):
        command = Command("fail", callback=lambda raised=raised: fail(raised))
        with pytest.raises(click.ClickException) as error:
            command.main([], standalone_mode=False)
        assert all(name in error.value.message for name in names), error.value.message
        assert "\n" not in error.value.message
        with pytest.raises(MemoryError) as error:
            command.main(["--debug"], standalone_mode=False)
        assert error.value is raised
