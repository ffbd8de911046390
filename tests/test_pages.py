"""The pages of the project: their code runs, and the options, files and links that they name exist.

The blocks of a page run in order, in one folder of its own and one namespace, as somebody would who follows the page.
"""

import contextlib
import io
import re
import shlex
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path
from typing import NamedTuple

import click
import pytest
from click.shell_completion import get_completion_class

from gru_xp.cli import cli
from gru_xp.forecasting import backtest, fitting, guard, settings
from gru_xp.pretrained.__main__ import main as pretrained
from gru_xp.reporting import run_folder

ROOT = Path(__file__).parents[1]
PAGES = [
    *ROOT.glob("*.md"),
    *(p for d in ("cli", "data", "gru_xp", "benchmarks") for p in (ROOT / d).rglob("*.md")),
]
SHELLS = ("bash", "sh", "zsh", "fish")
MAX_EPOCHS, MAX_STEPS = 3, 10
"""Of the trainings that run here."""

PEERS = re.compile(r"^\s*(import|from) (torch|keras|onnx\w*)\b|\.(onnx|pt)\b|\b\w+_onnx\b", re.MULTILINE)
"""In a block that needs one of these libraries."""

MODULES = ("mutation", "offline", "tables")
"""Of the benchmarks, with a command line of their own."""

NOT_RUN = ("mutmut ", *(f"python -m benchmarks.{name}" for name in MODULES), "rm -r mutants", "pytest", "export ")
"""Commands that are not gru-xp's."""

QUOTE = re.compile(r"# \w+\.py\n")
"""The first line of code that is quoted from a file; test_architecture.py compares it."""


class Block(NamedTuple):
    language: str
    text: str
    line: int


def name_of(page):
    return page.relative_to(ROOT).as_posix()


def blocks_of(page):
    text = page.read_text(encoding="utf-8")
    found = re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [Block(match[1], match[2], text.count("\n", 0, match.start()) + 1) for match in found]


def needs_peers(block):
    return block.language in ("python", *SHELLS, "console") and bool(PEERS.search(block.text))


def prose_of(page):
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


# --- code -------------------------------------------------------------------------------------------------------


def variants():
    for page in PAGES:
        blocks = blocks_of(page)
        if any(needs_peers(block) for block in blocks):
            yield pytest.param(page, True, marks=pytest.mark.peer, id=f"{name_of(page)}, with peers")
        if any(not needs_peers(block) for block in blocks):
            yield pytest.param(page, False, id=name_of(page))


@pytest.fixture
def folder(tmp_path, monkeypatch, pytestconfig):
    """A folder that has what the code on the pages expects in the repository's root."""
    if pytestconfig.getoption("fake_cupy"):
        pytest.skip("trainings of this size take minutes on the stand-in for CuPy, which --device auto would choose")
    for name in ("data", "benchmarks"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_folder, "write_plots", lambda *arguments: None)  # which take longer than all the rest
    monkeypatch.setattr(fitting, "check_memory", lambda *arguments: None)
    for module in (settings, guard):
        monkeypatch.setattr(module, "step_budget", lambda windows, batch_size: MAX_STEPS)
    return tmp_path


@pytest.mark.filterwarnings("ignore::DeprecationWarning:keras")
@pytest.mark.filterwarnings("default::gru_xp.errors.DataWarning")
@pytest.mark.parametrize(("page", "with_peers"), list(variants()))
def test_the_blocks_of_a_page_run(page, with_peers, folder, monkeypatch, plain_accuracy):
    if with_peers:
        for library in ("torch", "keras", "onnx", "onnxruntime"):
            if re.search(rf"\b{library}\b", page.read_text(encoding="utf-8")):
                pytest.importorskip(library)
        monkeypatch.setenv("KERAS_BACKEND", "torch")
    namespace = {"__name__": "page"}
    for block in blocks_of(page):
        if not with_peers and needs_peers(block):
            continue
        where = f"{name_of(page)}, line {block.line}"
        if block.language == "python":
            if not QUOTE.match(block.text):
                code = compile("\n" * block.line + block.text, str(page), "exec")
                with contextlib.redirect_stdout(io.StringIO()):
                    exec(code, namespace)
        elif block.language == "console":
            command, shown = block.text.removeprefix("$ ").split("\n", 1)
            assert shape_of(run_line(command, where)) == shape_of(shown), where
        elif block.language in SHELLS:
            for line in block.text.replace("\\\n", " ").splitlines():
                with monkeypatch.context() as patch:
                    patch.setattr(backtest, "accuracy", plain_accuracy)  # tables are looked at where one is shown
                    patch.setattr(backtest, "ridge_beside", lambda *arguments: None)
                    run_line(line, where)
        else:
            assert block.language == "text", f"{where}: {block.language!r} is not a language that is checked"


def shape_of(text):
    """What a program prints, but for numbers, which differ from machine to machine, their conclusions, and spaces."""
    text = re.sub(r"^The GRU .*$", "The GRU", text, flags=re.MULTILINE)
    return re.sub(r"[+-]?\d[\d.,]*%?", "0", re.sub("─+", "─", text)).split()


def run_line(line, where):
    """Run the commands of a line, one after the other; the output of those of gru-xp that goes nowhere else."""
    output = ""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="&;|>")
    lexer.whitespace_split = True
    lexer.commenters = "#"
    command = []
    for word in [*lexer, ";"]:
        if word in ("&&", ";"):
            output += run_command(command, where)
            command = []
        else:
            command.append(word)
    return output


def run_command(words, where):
    environment = {}
    while words and (match := re.fullmatch(r"([A-Z_]+)=(.*)", words[0])):
        environment[match[1]] = match[2]
        words = words[1:]
    if not words:
        return ""
    program, *arguments = words
    if program == "eval":  # "$(…)"
        return run_line(arguments[0].removeprefix("$(").removesuffix(")"), where)
    if words[:3] == ["python", "-m", "benchmarks"]:
        check_arguments(benchmarks(), words[3:])
        return ""
    if words[:3] == ["python", "-m", "gru_xp.pretrained"]:
        pretrained.make_context("", words[3:])
        return ""
    if program == "gru-xp" or words[:3] == ["python", "-m", "gru_xp"]:
        return run_app(words[1:] if program == "gru-xp" else words[3:], environment, where)
    if program in ("head", "cp"):
        if ">" in words:
            words, path = words[: words.index(">")], words[words.index(">") + 1]
            Path(path).write_bytes(subprocess.run(words, check=True, stdout=subprocess.PIPE).stdout)
        else:
            subprocess.run(words, check=True)
        return ""
    if words[:2] == ["pip", "install"]:
        check_installed(words[2:], where)
        return ""
    assert " ".join(words).startswith(NOT_RUN), f"{where}: {' '.join(words)!r} is not recognised"
    return ""


def run_app(arguments, environment, where):
    completion = environment.get("_GRU_XP_COMPLETE")
    if completion is not None:
        shell, instruction = completion.split("_")
        assert instruction == "source"
        assert get_completion_class(shell) is not None, where
        if "|" in arguments:
            assert arguments == ["|", "source"]
            arguments = []
    target = None
    if ">" in arguments:
        arguments, target = arguments[: arguments.index(">")], arguments[arguments.index(">") + 1]
    if arguments[:1] == ["train"]:
        arguments = shortened(arguments)
    (entry,) = entry_points(group="console_scripts", name="gru-xp")
    main = entry.load()
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.setattr(sys, "argv", ["gru-xp", *arguments])
        patch.setattr(sys.modules["__main__"], "__package__", None)  # as a script has it, whatever started the tests
        with pytest.raises(SystemExit) as leaving:
            main()
    assert leaving.value.code == 0, f"{where}: {' '.join(arguments)}: {text_of(err)}"
    if completion is not None:
        assert "_GRU_XP_COMPLETE" in text_of(out), where
    if target is not None:
        Path(target).write_text(text_of(out), encoding="utf-8")
        return ""
    return text_of(out)


def text_of(stream):
    return stream.buffer.getvalue().decode()


def shortened(arguments):
    """The arguments of a training that takes no time; one that is resumed is trained a little further.

    A training in which neither epochs nor a preset are given has a budget of steps, which is small here.
    """
    resumed = "--resume" in arguments
    if "--num-epochs" not in [argument.replace("_", "-") for argument in arguments]:
        return [*arguments, "--num-epochs", str(MAX_EPOCHS)] if "--preset" in arguments else arguments
    check_arguments(cli, arguments)
    return [*arguments, "--num-epochs", str(2 * MAX_EPOCHS if resumed else MAX_EPOCHS)]  # the last one counts


def benchmarks():
    """The command line of the measurements, which is no part of the package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT)  # other packages call something benchmarks, too
        from benchmarks.__main__ import benchmarks
    return benchmarks


def check_arguments(group, arguments):
    """See that a command takes these arguments, without running it."""
    context = group.make_context("", list(arguments))
    name, command, rest = group.resolve_command(context, list(arguments))  # the group has no options before the command
    command.make_context(name, rest, parent=context)


def extras():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]


def check_installed(words, where):
    for word in words:
        if match := re.fullmatch(r"\.(?:\[(.*)\])?", word):
            assert set(filter(None, (match[1] or "").split(","))) <= set(extras()), f"{where}: {word}"
        else:
            assert word == "-e" or "==" in word, f"{where}: {word}"


# --- what pages name ------------------------------------------------------------------------------------------


def test_links_of_pages_lead_somewhere():
    missing = []
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", prose_of(page)):
            path, _, anchor = target.partition("#")
            file = page.parent / path if path else page
            if not file.exists() or (anchor and anchor not in anchors_of(file)):
                missing.append(f"{name_of(page)}: {target}")
    assert missing == []


def anchors_of(page):
    """The names that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", prose_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_options_that_pages_name_exist():
    known = {
        option
        for command in (*cli.commands.values(), *benchmarks().commands.values(), pretrained)
        for p in command.params
        for option in (*p.opts, *p.secondary_opts)
    }
    for name in MODULES:
        known |= set(re.findall(r'"(--[a-z-]+)"', (ROOT / f"benchmarks/{name}.py").read_text(encoding="utf-8")))
    known |= {"--help", "--version", "--share"}
    unknown = []
    for page in PAGES:
        named = re.findall(r"(?<![\w-])--[a-z][\w-]*", page.read_text(encoding="utf-8"))
        unknown += [f"{name_of(page)}: {option}" for option in named if option.replace("_", "-") not in known]
    assert unknown == []


def test_environment_variables_that_pages_name_are_read():
    sources = "".join(p.read_text(encoding="utf-8") for d in ("gru_xp", "cli") for p in (ROOT / d).rglob("*.py"))
    for page in PAGES:
        for name in re.findall(r"(?<!_)\bGRU_XP_[A-Z_]+", page.read_text(encoding="utf-8")):
            assert name in sources, f"{name_of(page)}: {name}"


def test_every_page_is_in_the_table_of_contents():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    contents = readme[readme.index("## Where to go") :]
    for page in PAGES:
        if page.parent != ROOT and "tests" not in page.parts:
            assert f"]({name_of(page)})" in contents, name_of(page)


def test_the_readme_is_short_and_has_every_extra():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(readme.splitlines()) <= 150
    table = readme[readme.index("## Extras") : readme.index("## Where to go")]
    assert set(re.findall(r"`(\w+)`", table)) == set(extras())


def test_every_option_of_the_command_line_is_explained():
    page = (ROOT / "cli/README.md").read_text(encoding="utf-8")
    for name, command in cli.commands.items():
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert f"{parameter.opts[-1]}" in page, f"{name} {parameter.opts[-1]}"
