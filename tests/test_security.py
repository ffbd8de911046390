"""What files from strangers cannot do: run code, open other files, reach the network, write markup."""

import ast
import re
import socket
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from gru_xp import Forecaster

ROOT = Path(__file__).parents[1]
SOURCES = [path for folder in ("gru_xp", "cli", "data", "benchmarks") for path in sorted((ROOT / folder).rglob("*.py"))]

RUNS_CODE = {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "yaml", "code", "runpy"}
REACHES_OUT = {"socket", "ssl", "urllib", "http", "ftplib", "smtplib", "requests", "urllib3", "httpx", "webbrowser"}

FORBIDDEN_TEXT = [
    r"allow_pickle\s*=\s*True",
    r"weights_only\s*=\s*False",
    r"trust_remote_code",
    r"shell\s*=\s*True",
    r"yaml\.(unsafe_|full_)?load",
    r"(read|to)_(pickle|html)",
    r"<(!doctype|html|body|script|div|svg)\b",
    r"\.html?[\"']",
]


@cache
def nodes(path):
    return list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def calls(path):
    return [(node, ast.unparse(node.func)) for node in nodes(path) if isinstance(node, ast.Call)]


def offenders(rule):
    """File, colon and problem, for each problem that ``rule(path)`` yields."""
    return [f"{path.relative_to(ROOT)}: {problem}" for path in SOURCES for problem in rule(path)]


def test_the_sources_are_found():
    assert {path.relative_to(ROOT).parts[0] for path in SOURCES} == {"gru_xp", "cli", "data", "benchmarks"}


def test_nothing_imports_what_runs_code_or_reaches_out():
    def imported(path):
        for node in nodes(path):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                modules = [node.module]
            for module in modules:
                if module.partition(".")[0] in RUNS_CODE | REACHES_OUT:
                    yield f"line {node.lineno}: {module}"

    assert offenders(imported) == []


def runs_code(node, name):
    """Whether a call of this name runs code or a shell."""
    if name in ("eval", "exec", "compile", "__import__", "os.system", "os.popen"):
        return True
    if name.rpartition(".")[2] == "eval":  # a module of PyTorch's has one without arguments
        return bool(node.args or node.keywords)
    if name == "torch.load":
        return "True" not in [ast.unparse(word.value) for word in node.keywords if word.arg == "weights_only"]
    return bool(re.fullmatch(r"os\.(exec|spawn)\w+", name))


def test_nothing_runs_code_or_a_shell():
    def found(path):
        return [f"line {node.lineno}: {ast.unparse(node)}" for node, name in calls(path) if runs_code(node, name)]

    assert offenders(found) == []


def test_calls_that_run_code_are_seen():
    def seen(text):
        call = ast.parse(text, mode="eval").body
        return runs_code(call, ast.unparse(call.func))

    bad = ["eval('1')", "x.eval('1')", "os.execv('a', b)", "os.system('a')", "torch.load(f)"]
    bad += ["torch.load(f, weights_only=False)", "torch.load(f, weights_only=w)"]
    assert [text for text in bad if not seen(text)] == []
    good = ["model.eval()", "torch.load(f, weights_only=True)", "os.path.join(a)"]
    assert [text for text in good if seen(text)] == []


def test_no_source_has_words_that_would_do():
    def found(path):
        text = path.read_text(encoding="utf-8")
        return [pattern for pattern in FORBIDDEN_TEXT if re.search(pattern, text, re.IGNORECASE)]

    assert offenders(found) == []


def test_modules_are_imported_by_names_of_the_source():
    """Elsewhere than in these few files, which read none from a file, modules are imported by statements."""
    files = {str(path.relative_to(ROOT)) for path in SOURCES for _, name in calls(path) if "import_module" in name}
    assert {file for file in files if not file.startswith("benchmarks")} == {
        "gru_xp/__init__.py",
        "gru_xp/devices/cublas.py",
        "gru_xp/devices/cupy_ops.py",
        "gru_xp/devices/fast_paths.py",
        "gru_xp/forecasting/backtest.py",
        "gru_xp/forecasting/forecaster.py",
        "gru_xp/interop/peers.py",
        "gru_xp/nn/scan.py",
        "gru_xp/pretrained/__init__.py",
    }


# --- network ----------------------------------------------------------------------------------------------------


def test_there_is_no_network_here(network):
    with pytest.raises(RuntimeError, match=r"socket\.getaddrinfo .*there is no network in the tests"):
        socket.create_connection(("localhost", 9), timeout=1)
    with socket.socket() as s, pytest.raises(RuntimeError, match=r"socket\.connect .*there is no network"):
        s.connect(("127.0.0.1", 9))
    assert len(network) == 2
    network.clear()


def test_there_is_no_network_in_other_processes():
    code = "import socket; socket.create_connection(('127.0.0.1', 9), timeout=1)"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.returncode == 1
    assert "there is no network in the tests" in process.stderr


# --- paths ------------------------------------------------------------------------------------------------------

WATCHED = """
import sys
opened = []
sys.addaudithook(lambda event, arguments: opened.append(f"{event} {arguments!r}"))
"""


def opened_by(code):
    """Of a new Python that runs the code: whatever it asked of the system in which a stranger's path stands."""
    found = "*(event for event in opened if 'strangers-own' in event)"
    code = f"{WATCHED}{code}\nprint('', {found}, '', sep='\\nasked for ')"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "\nasked for " in process.stdout, process.stderr
    return re.findall("^asked for (.+)", process.stdout, re.MULTILINE)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The path of a model whose texts are all the path of a file that is there, and could be read."""
    folder = tmp_path_factory.mktemp("strangers")
    path = str(folder / "strangers-own.csv")
    Path(path).write_text("Date,Close\n" + "".join(f"2024-01-{day:02d},{day % 7}\n" for day in range(1, 29)))
    model = Forecaster(seq_length=3, hidden_size=2, num_epochs=1, reset="after", guard=False)
    model.fit(np.random.default_rng(0).standard_normal((20, 1)), device="cpu")
    model.columns = (path,)
    names = ("file", "path", "sha256", "fit_sha256", "last_label", "device_reason", "requested_device", "checkpoint")
    model.notes = dict.fromkeys(names, path) | {"bundled": False, "train_end": 5, "fit_end": 20}
    (folder / "run").mkdir()
    model.save(folder / "run/model.safetensors")
    return folder / "run/model.safetensors"


def test_what_is_watched_is_seen(model):
    path = str(model.parent.parent / "strangers-own.csv")
    assert len(opened_by(f"open({path!r}).close()")) == 1


def test_a_model_opens_no_file_but_its_own(model, tmp_path):
    """Nor do the commands, whose words name only the run."""
    lines = [
        ["gru-xp", *words, "--device", "cpu"]
        for words in (["forecast", str(model.parent), "--steps", "2"], ["evaluate", str(model.parent)])
    ]
    code = f"""
import contextlib
import numpy as np
from gru_xp import Forecaster
from gru_xp.cli import main
forecaster = Forecaster.load({str(model)!r}, device="cpu")
forecaster.forecast(np.arange(9.0), 2)
forecaster.save({str(tmp_path / "copy.safetensors")!r})
for sys.argv in {lines!r}:
    with contextlib.suppress(SystemExit):
        main()
"""
    assert opened_by(code) == []
    assert (tmp_path / "copy.safetensors").read_bytes() == model.read_bytes()


@pytest.mark.peer
@pytest.mark.parametrize("suffix", [".onnx", ".pt"])
def test_no_conversion_opens_a_path_out_of_a_model(model, tmp_path, suffix):
    pytest.importorskip("torch" if suffix == ".pt" else "onnx")
    other = str(tmp_path / "other") + suffix
    code = f"""
from gru_xp.interop.files import export_file, import_file
from gru_xp import Forecaster
forecaster = Forecaster.load({str(model)!r}, device="cpu")
export_file(forecaster, {other!r})
import_file({other!r}, device="cpu")
"""
    assert opened_by(code) == []
