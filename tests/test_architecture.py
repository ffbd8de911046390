"""The rules of the house: what may import what, and that what is written about the code is so."""

import ast
import csv
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = [path for folder in ("gru_xp", "cli", "data") for path in sorted((ROOT / folder).rglob("*.py"))]
IDS = [str(path.relative_to(ROOT)) for path in SOURCES]

ROOMS = ["errors", "fastest", "nn", "devices", "training", "forecasting", "interop", "reporting", "cli"]
"""From the bottom up: each may import itself and those before it."""

ARRAY_LIBRARIES = {"numpy", "cupy", "cupyx", "torch", "jax", "array_api_strict", "dask", "tensorflow"}
PEERS = {"torch", "keras", "onnx", "onnxruntime", "jax"}
COMMANDS = ["train", "evaluate", "forecast", "export", "import", "devices"]

every_source = pytest.mark.parametrize("path", SOURCES, ids=IDS)


def parse(path):
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def room(path):
    """The part of the house that a file is in; None for gru_xp/__init__.py, which only hands names on."""
    first, *rest = path.relative_to(ROOT).parts
    if first != "gru_xp":
        return first
    return None if rest == ["__init__.py"] else rest[0].removesuffix(".py")


def imports(path):
    """Full names of the modules that a file imports anywhere, relative ones resolved."""
    package = path.relative_to(ROOT).parent.parts
    package = package if package[0] == "gru_xp" else ("gru_xp", *package)
    found = []
    for node in ast.walk(parse(path)):
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


def test_the_sources_are_found():
    assert {room(path) for path in SOURCES} >= {
        "errors",
        "nn",
        "devices",
        "training",
        "forecasting",
        "interop",
        "reporting",
        "cli",
    }


# --- imports ----------------------------------------------------------------------------------------------------


@every_source
def test_imports_go_down(path):
    own = room(path)
    if own in (None, "data"):
        return
    assert own in ROOMS, f"{own} has no place in the order of rooms"
    for module in imports(path):
        parts = module.split(".")
        if parts[0] != "gru_xp" or len(parts) == 1:
            continue
        if parts[1] in ROOMS:
            assert ROOMS.index(parts[1]) <= ROOMS.index(own), f"{own} imports {module}"
        else:
            assert own == "cli" or parts[1] == "data", f"{own} imports {module}"


@every_source
def test_libraries_for_devices_are_imported_by_devices_only(path):
    if room(path) not in ("devices", "interop"):
        modules = imports(path)
        assert not {top(module) for module in modules} & {"cupy", "cupyx", "torch", "jax"}
        assert not {"array_api_compat.cupy", "array_api_compat.torch"} & set(modules)


@every_source
def test_other_frameworks_are_imported_by_interop_only(path):
    """Beside PyTorch, whose tensors devices move."""
    if room(path) != "interop":
        assert not {top(module) for module in imports(path)} & (PEERS - {"torch"})


def test_other_frameworks_are_imported_when_they_are_asked_for():
    names = [f"gru_xp.interop.{path.stem}" for path in SOURCES if room(path) == "interop" and path.stem[0] != "_"]
    assert {"gru_xp.interop.keras", "gru_xp.interop.onnx", "gru_xp.interop.torch"} <= set(names)
    code = f"import sys, gru_xp.interop, {', '.join(names)}; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "gru_xp.interop.gates" in out.split()
    assert not set(out.split()) & PEERS


@every_source
def test_maths_and_training_know_no_numpy(path):
    if room(path) in ("nn", "training", "errors"):
        assert "numpy" not in {top(module) for module in imports(path)}
        assert "array_api_compat.numpy" not in imports(path)


@pytest.mark.parametrize("path", [path for path in SOURCES if room(path) == "nn"], ids=lambda path: path.name)
def test_the_maths_names_no_array_library(path):
    for module in imports(path):
        allowed = top(module) in sys.stdlib_module_names or module.startswith("gru_xp.nn.")
        allowed = allowed or module in ("gru_xp.nn", "array_api_compat", "gru_xp.errors")
        allowed = allowed or module in ("gru_xp.fastest", "gru_xp.fastest.fastest_ops")
        allowed = allowed or re.fullmatch(r"gru_xp\.errors\.\w+", module)
        if not allowed:  # a name of a function, not of a namespace
            assert re.fullmatch(r"array_api_compat\.\w+", module), module
            assert module.partition(".")[2] not in ARRAY_LIBRARIES, module
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Name):
            assert node.id not in {*ARRAY_LIBRARIES, "np", "cp"}
        elif isinstance(node, ast.Constant):
            assert node.value not in ARRAY_LIBRARIES


def test_only_the_maths_asks_which_ops_are_the_fastest():
    """That file is a leaf: it imports nothing of the house, until it is asked."""
    assert not [module for module in imports(ROOT / "gru_xp/fastest.py") if top(module) not in sys.stdlib_module_names]
    askers = {path.name for path in SOURCES if any(m.startswith("gru_xp.fastest") for m in imports(path))}
    assert askers == {"ops.py"}


def test_the_maths_imports_no_device():
    code = "import sys, gru_xp.nn, gru_xp.nn.inference, gru_xp.nn.network; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "gru_xp.fastest" in out.split()
    assert not [module for module in out.split() if module.startswith("gru_xp.devices")]


@pytest.mark.parametrize("path", [path for path in SOURCES if room(path) == "cli"], ids=lambda path: path.name)
def test_the_command_line_imports_its_own_files_relatively(path):
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            assert not any(alias.name == "cli" or alias.name.startswith(("cli.", "gru_xp.cli")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            assert not re.match(r"(gru_xp\.)?cli(\.|$)", node.module)


@pytest.mark.parametrize("folder", ["gru_xp", "tests"])
def test_nothing_imports_cli_or_data_as_a_name_of_its_own(folder):
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.Import):
                assert not {top(alias.name) for alias in node.names} & {"cli", "data"}, path
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                assert top(node.module) not in ("cli", "data"), path


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
    assert not set(out.split()) & {"numpy", "pandas", "matplotlib", "cupy", "array_api_compat", "rich", *PEERS}


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


@every_source
def test_every_file_is_explained(path):
    assert ast.get_docstring(parse(path)), "no docstring"


@every_source
def test_every_public_function_and_class_is_explained(path):
    for node in parse(path).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{node.name} has no docstring"


@every_source
def test_nothing_prints(path):
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("print", "pprint", "breakpoint"), f"line {node.lineno}"


# --- what is written about the code -----------------------------------------------------------------------------


def quoted_code():
    """File and lines of every block of ``gru_xp/nn/README.md`` that quotes a file."""
    text = (ROOT / "gru_xp/nn/README.md").read_text(encoding="utf-8")
    for block in re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        first, *lines = block.strip().splitlines()
        if match := re.fullmatch(r"# (\w+\.py)", first.strip()):
            yield pytest.param(match[1], [line.strip() for line in lines], id=f"{match[1]}: {lines[0].strip()[:40]}")


@pytest.mark.parametrize(("file", "quoted"), list(quoted_code()))
def test_code_that_the_derivation_quotes_is_there(file, quoted):
    lines = [line.strip() for line in (ROOT / "gru_xp/nn" / file).read_text(encoding="utf-8").splitlines()]
    assert quoted
    assert any(lines[start : start + len(quoted)] == quoted for start in range(len(lines)))


def test_the_derivation_quotes_every_file_of_the_maths_that_has_a_backward_pass():
    quoted = {parameter.values[0] for parameter in quoted_code()}
    files = {"activations.py", "cell.py", "gru.py", "linear.py", "losses.py", "network.py", "stack.py"}
    assert files <= quoted


@pytest.mark.parametrize("path", sorted((ROOT / "data").glob("*.csv")), ids=lambda path: path.name)
def test_the_bundled_files_are_described(path):
    with path.open(newline="", encoding="utf-8") as file:
        _, *rows = csv.reader(file)
    readme = (ROOT / "data/README.md").read_text(encoding="utf-8")
    readme = re.sub(r"(?<=\d)[,\u2009\u202f](?=\d{3}\b)", "", readme)  # 2,148 is 2148
    wanted = [path.name, str(len(rows)), rows[0][0], rows[-1][0]]
    patterns = [rf"(?<![\w.-]){re.escape(text)}(?![\w.]\w|\w|-\d)" for text in wanted]
    assert any(all(re.search(p, line) for p in patterns) for line in readme.splitlines()), f"no line has {wanted}"


def test_the_readme_starts_people_off():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "pip install . && gru-xp train GOOG.csv" in readme
    assert 'pip install -e ".[test]" && pytest' in readme
