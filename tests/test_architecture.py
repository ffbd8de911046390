"""The rules of the house: what may import what, and that what is written about the code is so."""

import ast
import csv
import re
import subprocess
import sys
import tokenize
import tomllib
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = [path for folder in ("gru_xp", "cli", "data") for path in sorted((ROOT / folder).rglob("*.py"))]

ROOMS = ["errors", "nn", "devices", "training", "io", "forecasting", "pretrained", "interop", "reporting", "cli"]
"""From the bottom up: each may import itself and those before it; `io` is beside those before it."""

MAX_IO_LINES = 1740
"""Of code in gru_xp/io, without docstrings, comments and blank lines; about 185 of these are for several series."""

ARRAY_LIBRARIES = {"numpy", "cupy", "cupyx", "torch", "jax", "array_api_strict", "dask", "tensorflow"}
PEERS = {"torch", "keras", "onnx", "onnxruntime", "jax", "statsforecast"}
COMMANDS = ["inspect", "train", "evaluate", "backtest", "forecast", "explain", "export", "import", "devices"]


@cache
def parse(path):
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


@cache
def nodes(path):
    return list(ast.walk(parse(path)))


def room(path):
    """The part of the house that a file is in; None for gru_xp's own __init__.py and __main__.py."""
    first, *rest = path.relative_to(ROOT).parts
    if first != "gru_xp":
        return first
    return None if rest in (["__init__.py"], ["__main__.py"]) else rest[0].removesuffix(".py")


@cache
def imports(path):
    """Full names of the modules that a file imports anywhere, relative ones resolved."""
    package = path.relative_to(ROOT).parent.parts
    package = package if package[0] == "gru_xp" else ("gru_xp", *package)
    found = []
    for node in nodes(path):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            # `from package import module` names a module, too
            found += [module, *(f"{module}.{alias.name}" for alias in node.names)]
    return found


def top(module):
    return module.partition(".")[0]


def offenders(rule, paths=SOURCES):
    """File, colon and problem, for each problem that ``rule(path)`` yields."""
    return [f"{path.relative_to(ROOT)}: {problem}" for path in paths for problem in rule(path)]


def sources_of(*rooms):
    found = [path for path in SOURCES if room(path) in rooms]
    assert found
    return found


def test_the_sources_are_found():
    assert {room(path) for path in SOURCES} >= {*ROOMS, "data"}


# --- imports ----------------------------------------------------------------------------------------------------


def test_imports_go_down():
    def upwards(path):
        own = room(path)
        if own not in ROOMS:
            yield f"{own} is not in ROOMS"
            return
        for module in imports(path):
            package, *rest = module.split(".")
            if package != "gru_xp" or not rest:
                continue
            if rest[0] in ROOMS:
                allowed = ROOMS.index(rest[0]) <= ROOMS.index(own)
            else:
                allowed = (
                    own == "cli" or rest[0] == "data" or re.fullmatch(r"gru_xp\.(PLAIN_SCANS|SCANS|PLOTS)", module)
                )
            if not allowed:
                yield module

    assert offenders(upwards, [path for path in SOURCES if room(path) not in (None, "data")]) == []


def test_reading_imports_little():
    """Beside errors, where the bundled files are."""

    def imported(path):
        return [m for m in imports(path) if top(m) == "gru_xp" and not re.match(r"gru_xp\.(errors|io|data)(\.|$)", m)]

    assert offenders(imported, sources_of("io")) == []
    assert offenders(imported, sources_of("forecasting"))


def test_libraries_for_devices_are_imported_by_devices_only():
    forbidden = {"cupy", "cupyx", "torch", "jax"}
    namespaces = {"array_api_compat.cupy", "array_api_compat.torch"}

    def imported(path):
        return [module for module in imports(path) if top(module) in forbidden or module in namespaces]

    assert offenders(imported, [path for path in SOURCES if room(path) not in ("devices", "interop")]) == []
    assert offenders(imported, sources_of("devices"))


def test_other_frameworks_are_imported_by_interop_only():
    """Beside PyTorch, whose tensors devices move."""

    def imported(path):
        return [module for module in imports(path) if top(module) in PEERS - {"torch"}]

    assert offenders(imported, [path for path in SOURCES if room(path) != "interop"]) == []
    assert offenders(imported, sources_of("interop"))


def test_other_frameworks_are_imported_when_they_are_asked_for():
    names = [f"gru_xp.interop.{path.stem}" for path in SOURCES if room(path) == "interop" and path.stem[0] != "_"]
    assert {"gru_xp.interop.keras", "gru_xp.interop.onnx", "gru_xp.interop.torch"} <= set(names)
    code = f"import sys, gru_xp.interop, {', '.join(names)}; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "gru_xp.interop.gates" in out.split()
    assert not set(out.split()) & PEERS


def test_maths_and_training_know_no_numpy():
    def imported(path):
        return [module for module in imports(path) if top(module) == "numpy" or module == "array_api_compat.numpy"]

    assert offenders(imported, sources_of("nn", "training", "errors")) == []
    assert offenders(imported, sources_of("devices"))


def test_the_maths_names_no_array_library():
    own = r"gru_xp(\.(PLAIN_)?SCANS)?|gru_xp\.nn(\..+)?|gru_xp\.errors(\.\w+)?|array_api_compat"

    def named(path):
        for module in imports(path):
            # of array_api_compat, functions are fine, but not namespaces
            function = re.fullmatch(r"array_api_compat\.(\w+)", module)
            if top(module) in sys.stdlib_module_names or re.fullmatch(own, module):
                continue
            if not function or function[1] in ARRAY_LIBRARIES:
                yield module
        for node in nodes(path):
            if isinstance(node, ast.Name) and node.id in {*ARRAY_LIBRARIES, "np", "cp"}:
                yield f"line {node.lineno}: {node.id}"
            elif isinstance(node, ast.Constant) and node.value in ARRAY_LIBRARIES:
                yield f"line {node.lineno}: {node.value!r}"

    assert offenders(named, sources_of("nn")) == []
    assert offenders(named, sources_of("devices"))


def test_few_files_ask_the_package_where_something_above_them_is():
    """Below the command line, nobody else imports from the package itself, which is above all rooms."""
    asked = {name: [] for name in ("gru_xp.SCANS", "gru_xp.PLOTS")}
    for path in sources_of(*ROOMS[:-1]):
        if "gru_xp" in imports(path):
            asked[next(name for name in asked if name in imports(path))].append(str(path.relative_to(ROOT / "gru_xp")))
    assert asked == {
        "gru_xp.SCANS": ["nn/scan.py"],
        "gru_xp.PLOTS": ["forecasting/backtest.py", "forecasting/forecaster.py"],
    }


MAX_LAYER_LINES = 300
"""Of code in cell.py and gru.py together, without docstrings, comments and blank lines."""


def test_the_maths_writes_into_nothing():
    """The maths has neither ``out=`` nor an assignment to a part of an array."""

    def written(path):
        for node in nodes(path):
            if isinstance(node, ast.keyword) and node.arg == "out":
                yield f"line {node.value.lineno}: out="
            elif isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load):
                yield f"line {node.lineno}: {ast.unparse(node)}"

    assert offenders(written, sources_of("nn")) == []
    assert offenders(written, [ROOT / "gru_xp/devices/numpy_ops.py"])


def test_the_layer_is_short():
    assert sum(len(lines_of_code(ROOT / f"gru_xp/nn/{name}.py")) for name in ("cell", "gru")) <= MAX_LAYER_LINES


def test_the_maths_imports_no_device():
    code = "import sys, gru_xp.nn, gru_xp.nn.inference, gru_xp.nn.network; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "gru_xp.nn.scan" in out.split()
    assert not [module for module in out.split() if module.startswith("gru_xp.devices")]


def test_the_command_line_imports_its_own_files_relatively():
    def absolute(path):
        for node in nodes(path):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            else:
                modules = [node.module] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
            yield from (module for module in modules if re.match(r"(gru_xp\.)?cli(\.|$)", module))

    assert offenders(absolute, sources_of("cli")) == []
    assert offenders(absolute, list((ROOT / "tests/cli").rglob("*.py")))


def test_nothing_imports_cli_or_data_as_a_name_of_its_own():
    def imported(path):
        if not re.search(r"^\s*(from|import)\b.*\b(cli|data)\b", path.read_text(encoding="utf-8"), re.MULTILINE):
            return
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names if top(alias.name) in ("cli", "data"))
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and top(node.module) in ("cli", "data"):
                yield node.module

    assert offenders(imported, [path for folder in ("gru_xp", "tests") for path in (ROOT / folder).rglob("*.py")]) == []


def test_help_imports_no_library_for_arrays_tables_or_plots():
    code = f"""
import contextlib, io, sys
from importlib.metadata import entry_points
(entry,) = entry_points(group="console_scripts", name="gru-xp")
for command in [[], *([name] for name in {COMMANDS})]:
    sys.argv = ["gru-xp", *command, "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
        entry.load()()
    assert "Usage: gru-xp" in out.getvalue()
print(*sys.modules)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "gru_xp.cli" in out.split()
    slow = {"numpy", "pandas", "matplotlib", "cupy", "array_api_compat", "rich", "statsmodels", *PEERS}
    assert not set(out.split()) & slow


# --- files ------------------------------------------------------------------------------------------------------


def test_every_package_is_installed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    setuptools = project["tool"]["setuptools"]
    tree = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "gru_xp").rglob("__init__.py")}
    tree |= {f"gru_xp.{name}" for name in ("cli", "data") if (ROOT / name / "__init__.py").is_file()}
    assert setuptools["packages"] == sorted(tree)
    assert setuptools["package-dir"] == {"gru_xp.cli": "cli", "gru_xp.data": "data"}
    assert project["project"]["scripts"] == {"gru-xp": "gru_xp.cli:main"}


def test_every_folder_of_modules_is_a_package():
    for path in SOURCES:
        assert (path.parent / "__init__.py").is_file(), path.parent


def test_nothing_stands_in_the_way_of_cli_and_data():
    for name in ("cli", "data"):
        assert not (ROOT / "gru_xp" / name).exists()
        assert not (ROOT / "gru_xp" / f"{name}.py").exists()


def test_every_file_is_explained():
    assert offenders(lambda path: [] if ast.get_docstring(parse(path)) else ["no docstring"]) == []


def test_every_public_function_and_class_is_explained():
    def unexplained(path):
        for node in parse(path).body:
            public = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name[0] != "_"
            if public and not ast.get_docstring(node):
                yield f"line {node.lineno}: {node.name}"

    assert offenders(unexplained) == []


NO_CODE = ("COMMENT", "NL", "NEWLINE", "INDENT", "DEDENT", "ENCODING", "ENDMARKER")
"""Tokens that are no code."""


def lines_of_code(path):
    """The numbers of the lines that have code."""
    with path.open("rb") as file:
        tokens = [token for token in tokenize.tokenize(file.readline) if tokenize.tok_name[token.type] not in NO_CODE]
    lines = {line for token in tokens for line in range(token.start[0], token.end[0] + 1)}
    for node in nodes(path):
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if is_text and isinstance(node.value.value, str):
            lines -= set(range(node.lineno, node.end_lineno + 1))
    return lines


def test_reading_stays_small():
    assert sum(len(lines_of_code(path)) for path in sources_of("io")) <= MAX_IO_LINES


def test_nothing_prints():
    def prints(path):
        for node in nodes(path):
            called = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else None
            if called in ("print", "pprint", "breakpoint"):
                yield f"line {node.lineno}: {called}"

    assert offenders(prints) == []


# --- what is written about the code -----------------------------------------------------------------------------


def quoted_code():
    """File and lines of every block of ``gru_xp/nn/README.md`` that quotes a file."""
    text = (ROOT / "gru_xp/nn/README.md").read_text(encoding="utf-8")
    for block in re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        first, *lines = block.strip().splitlines()
        if match := re.fullmatch(r"# (\w+\.py)", first.strip()):
            yield match[1], [line.strip() for line in lines]


def test_the_derivation_quotes_code_that_is_there():
    """Of every file of the maths that has a backward pass."""
    missing = []
    for file, quoted in quoted_code():
        assert quoted, file
        lines = [line.strip() for line in (ROOT / "gru_xp/nn" / file).read_text(encoding="utf-8").splitlines()]
        if not any(lines[start : start + len(quoted)] == quoted for start in range(len(lines))):
            missing.append(f"{file}: {quoted[0]}")
    assert missing == []
    files = {"cell.py", "gru.py", "linear.py", "losses.py", "network.py", "stack.py"}
    assert files <= {file for file, _ in quoted_code()}


def test_the_bundled_files_are_described():
    """A line of the README has the name, the number of rows, the first label and the last."""
    readme = (ROOT / "data/README.md").read_text(encoding="utf-8")
    readme = re.sub(r"(?<=\d)[,\u2009\u202f](?=\d{3}\b)", "", readme)  # 2,148 is 2148
    files = sorted((ROOT / "data").glob("*.csv"))
    assert files
    for path in files:
        with path.open(newline="", encoding="utf-8") as file:
            _, *rows = csv.reader(file)
        wanted = [path.name, str(len(rows)), rows[0][0], rows[-1][0]]
        patterns = [rf"(?<![\w.-]){re.escape(text)}(?![\w.]\w|\w|-\d)" for text in wanted]
        assert any(all(re.search(p, line) for p in patterns) for line in readme.splitlines()), wanted


def test_the_readme_starts_people_off():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "pip install . && gru-xp train GOOG.csv" in readme
    assert 'pip install -e ".[test]" && pytest' in readme
