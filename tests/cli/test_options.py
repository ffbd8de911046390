import shlex
from dataclasses import MISSING, fields

import click
import pytest

from gru_xp import cli as app_package
from gru_xp.cli.options import Command
from gru_xp.errors import MemoryLimitError
from gru_xp.forecasting import Forecaster

cli = app_package.cli
COMMANDS = sorted(cli.commands)
OPTIONS = [
    (command, parameter)
    for command in COMMANDS
    for parameter in cli.commands[command].params
    if isinstance(parameter, click.Option)
]
NAMES = [f"{command} {option.opts[-1]}" for command, option in OPTIONS]


def parse(*arguments):
    """The values that a command gets, without running it."""
    group = cli.make_context("gru-xp", list(arguments))
    name, command, rest = cli.resolve_command(group, list(arguments))  # the group has no options before the command
    return command.make_context(name, rest, parent=group).params


# --- help -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", ["-h", "--help"])
@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_help_ends_with_an_example_that_works(app, monkeypatch, command, flag):
    monkeypatch.setenv("COLUMNS", "80")
    outcome = app(*([] if command is None else [command]), flag)
    assert outcome.code == 0
    assert outcome.err == ""
    last = outcome.out.strip().splitlines()[-1].strip()
    assert last.startswith("Example: gru-xp ")
    words = shlex.split(last.removeprefix("Example: gru-xp "))
    if ">" in words:
        words = words[: words.index(">")]
    assert words[0] == (command or words[0])
    assert parse(*words)


@pytest.mark.parametrize(("command", "option"), OPTIONS, ids=NAMES)
def test_every_option_is_explained(app, command, option):
    assert option.help
    assert option.help.strip().endswith((".", "]"))
    assert option.opts[-1] in app(command, "--help").out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_default_is_said(app, command):
    text = " ".join(app(command, "--help").out.split())
    for owner, option in OPTIONS:
        if owner == command and not option.is_flag and isinstance(option.default, str | int | float):
            assert f"[default: {option.default}" in text.replace("; x", " x").replace("(", "["), option.opts


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_explained(command):
    assert cli.commands[command].help.strip()


# --- names and defaults -----------------------------------------------------------------------------------------


VALUES = {"device": "cuda:1", "date_format": "%d/%m/%Y", "encoding": "cp1252"}


@pytest.mark.parametrize(("command", "option"), OPTIONS, ids=NAMES)
def test_underscores_will_do(command, option):
    if command == "import" and option.name == "out":
        pytest.skip("it is given anyway")
    arguments = {
        "train": ["own.csv"],
        "evaluate": ["run"],
        "forecast": ["run"],
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
    spellings = [name for name in option.opts if name.startswith("--")]
    for hyphens in spellings:
        underscores = "--" + hyphens[2:].replace("-", "_")
        given = parse(command, *arguments, underscores, *value)
        assert given == parse(command, *arguments, hyphens, *value)
        assert given != parse(command, *arguments)


def test_names_of_columns_and_files_keep_their_underscores(app, quick, tmp_path):
    lines = [f"{1900 + row},{row % 7},0" for row in range(60)]
    (tmp_path / "my_own.csv").write_text("\n".join(["Year,my_column,my-column", *lines]))
    outcome = app("train", "my_own.csv", "--target", "my_column", *quick, "--out", "my_run")
    assert outcome.code == 0
    assert "my_own.csv, my_column" in outcome.out
    assert (tmp_path / "my_run").is_dir()


def test_defaults_are_those_of_the_library():
    options = {option.name: option.default for command, option in OPTIONS if command == "train"}
    settings = {field.name: field.default for field in fields(Forecaster) if field.init}
    assert MISSING not in settings.values()
    for name, default in settings.items():
        assert name in options, f"{name} is no option of train"
        value = parse("train", "own.csv")[name]
        assert (value or None if name == "patience" else value) == default, name


def test_a_default_of_patience_0_is_none():
    assert parse("train", "own.csv", "--patience", "0")["patience"] == 0


# --- usage that is wrong ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--colour"], "--colour"),
        (["--hidden_sizes", "3"], "hidden-sizes"),
        (["--optimizer", "newton"], "'adam', 'sgd', 'momentum'"),
        (["--reset", "never"], "'before', 'after'"),
        (["--scaling", "log"], "'last', 'standard'"),
        (["--dtype", "float16"], "'float32', 'float64'"),
        (["--reduction", "max"], "'mean', 'sum'"),
        (["--device", "gpu"], "'gpu' is none of auto, cpu, cuda and cuda:N"),
        (["--device", "cuda:x"], "'cuda:x'"),
        (["--device", ""], "cuda:N"),
        (["--num-epochs", "0"], "--num-epochs"),
        (["--num-epochs", "2.5"], "--num-epochs"),
        (["--hidden-size", "0"], "--hidden-size"),
        (["--seq-length", "-1"], "--seq-length"),
        (["--batch-size", "0"], "--batch-size"),
        (["--learning-rate", "0"], "--learning-rate"),
        (["--learning-rate", "fast"], "--learning-rate"),
        (["--clip-norm", "0"], "--clip-norm"),
        (["--patience", "-1"], "--patience"),
        (["--seed", "-1"], "--seed"),
        (["--split-ratio", "0"], "--split-ratio"),
        (["--split-ratio", "1.1"], "--split-ratio"),
        (["--validation-ratio", "1"], "--validation-ratio"),
        (["--validation-ratio", "-0.1"], "--validation-ratio"),
        (["--num-layers", "0"], "--num-layers"),
        (["--num-layers", "1.5"], "--num-layers"),
        (["--bidirectional", "yes"], "yes"),
        (["--num-layers", "2", "--dropout", "1"], "--dropout"),
        (["--num-layers", "2", "--dropout", "-0.1"], "--dropout"),
        (["--recurrent-dropout", "1"], "--recurrent-dropout"),
        (["--recurrent-dropout", "much"], "--recurrent-dropout"),
        (["--zoneout", "1"], "--zoneout"),
        (["--dropout", "0.5"], "--dropout acts between layers; use --num-layers 2 or more, or --recurrent-dropout"),
        (["--dropout", "0.5", "--bidirectional", "--num-layers", "1"], "--dropout acts between layers; use "),
        (["IBM.csv"], "IBM.csv"),
    ],
)
def test_usage_that_is_wrong_is_told_apart_from_failure(app, unchanged, arguments, said):
    with unchanged():
        outcome = app("train", "GOOG.csv", *arguments)
    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.err.startswith("Usage: gru-xp train")
    assert said in outcome.err.splitlines()[-1]
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize("command", ["train", "evaluate", "forecast"])
def test_an_argument_that_is_missing(app, command):
    outcome = app(command)
    assert outcome.code == 2
    assert "Missing argument" in outcome.err


def test_a_command_that_is_none(app):
    outcome = app("predict")
    assert outcome.code == 2
    assert "No such command 'predict'" in outcome.err


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--learning-rate", "nan"),
        ("--learning-rate", "inf"),
        ("--clip-norm", "nan"),
        ("--clip-norm", "inf"),
        ("--split-ratio", "nan"),
        ("--validation-ratio", "nan"),
        ("--dropout", "nan"),
        ("--recurrent-dropout", "nan"),
        ("--zoneout", "nan"),
        ("--zoneout", "inf"),
    ],
)
def test_what_is_not_finite_is_wrong_usage(app, quick, unchanged, option, value):
    with unchanged():
        outcome = app("train", "GOOG.csv", *quick, option, value)
    assert outcome.code == 2
    assert option in outcome.err.splitlines()[-1]


# --- errors -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (MemoryError("8 GiB"), "not enough memory (8 GiB); close other programs, or give fewer rows"),
        (MemoryError(), "not enough memory; close other programs, or give fewer rows"),
        (MemoryLimitError("use batch_size=8 or keep_every=3"), "use --batch-size 8 or --keep-every 3"),
    ],
)
def test_memory_that_is_not_enough_is_one_line(raised, said):
    def fail():
        raise raised

    command = Command("fail", callback=fail)
    with pytest.raises(click.ClickException) as error:
        command.main([], standalone_mode=False)
    assert error.value.message == said
    with pytest.raises(MemoryError) as error:
        command.main(["--debug"], standalone_mode=False)
    assert error.value is raised
