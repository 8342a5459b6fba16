"""The rooms of the house: who may import whom, what an import costs, and that modules stay readable."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from pathlib import Path

import dbwjax

PACKAGE = Path(dbwjax.__file__).parent
MODULES = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}

# What each room may import besides itself and the ground floor.
GROUND = {"types", "specs", "files", "limits", "numbers"}
BUILT = GROUND | {"network", "policies", "engine", "learners", "tasks"}
ALLOWED = {
    "types": set(),
    "specs": {"limits", "numbers"},
    "files": set(),
    "limits": {"numbers"},
    "numbers": set(),
    "network": GROUND,
    "policies": GROUND | {"network", "learners"},
    "engine": GROUND | {"network"},
    "learners": GROUND | {"engine"},
    "tasks": GROUND,
    "runtime": GROUND | {"network", "engine"},
    "storage": GROUND | {"runtime"},
    "report": GROUND,
    "experiments": BUILT | {"runtime", "storage", "report"},
    "planning": BUILT | {"runtime", "storage", "report", "experiments"},
    "cli": BUILT | {"runtime", "storage", "report", "experiments", "planning"},
    "command": {"cli", "planning"},
}
HEAVY = ["orbax", "tensorflow_datasets", "tensorflow", "matplotlib", "networkx", "PIL", "flax", "optax", "tqdm"]
HEAVY += ["tensorboardX", "wandb", "scipy", "sklearn", "jinja2", "cvxpy"]
LONGEST_MODULE, LONGEST_FUNCTION = 350, 60


def room_of(name):
    """The room of a module, given by its path inside the package."""
    parts = name.removesuffix(".py").split("/")
    if parts[-1] == "__main__":  # `python -m dbwjax.report`, whose room is a package
        return "command"
    return parts[0] if len(parts) > 1 or parts[0] in ALLOWED else "command"


@functools.cache
def parsed(name):
    return ast.parse(MODULES[name].read_text(encoding="utf-8"))


def imported(name):
    """Every module that a module imports, anywhere in its text, by absolute dotted name."""
    here = ["dbwjax", *name.removesuffix(".py").split("/")]
    found = set()
    for node in ast.walk(parsed(name)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(here[: -node.level]) if node.level else ""
            module = ".".join(filter(None, [base, node.module]))
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return found


def test_imports_go_one_way():
    wrong = []
    for name in MODULES:
        if name == "__init__.py":
            continue
        room = room_of(name)
        rooms = {parts[1] for parts in (target.split(".") for target in imported(name)) if parts[0] == "dbwjax"}
        if rooms - ALLOWED[room] - {room}:
            wrong.append(f"{name} is in '{room}' and imports {sorted(rooms - ALLOWED[room] - {room})}")
    assert not wrong, "\n".join(wrong)


def test_the_reader_of_imports_sees_every_form():
    assert "dbwjax.policies.build_policies" in imported("experiments/problem.py")
    assert "dbwjax.report.run_figures.write_figures" in imported("experiments/run.py")  # inside a function
    assert "dbwjax.specs" in imported("policies/table.py")  # from dbwjax import specs
    assert {room_of(name) for name in MODULES if name != "__init__.py"} == set(ALLOWED)


def test_an_import_loads_nothing_heavy():
    """Neither the package nor any of its rooms; what is heavy is imported where it is used."""
    names = ["dbwjax" if name == "__init__.py" else f"dbwjax.{name.removesuffix('.py')}" for name in MODULES]
    modules = [name.replace("/", ".").removesuffix(".__init__") for name in names]
    code = (
        "import importlib, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        f"print(*sorted({HEAVY!r} & {{module.split('.')[0] for module in sys.modules}}))"
    ).replace(repr(HEAVY), repr(set(HEAVY)))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_modules_and_functions_stay_short():
    long = []
    for name, path in MODULES.items():
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > LONGEST_MODULE:
            long.append(f"{name} has {lines} lines; split it")
        for node in ast.walk(parsed(name)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                length = node.end_lineno - body[0].lineno + 1 if body else 0
                if length > LONGEST_FUNCTION:
                    long.append(f"{name}: {node.name} has {length} lines of code; split it")
    assert not long, "\n".join(long)


def test_everything_public_says_what_it_does():
    silent = []
    for name in MODULES:
        tree = parsed(name)
        if not ast.get_docstring(tree):
            silent.append(f"{name} does not say its place in the house")
        for node in tree.body:
            public = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
            if public and not ast.get_docstring(node):
                silent.append(f"{name}: {node.name} has no docstring")
    assert not silent, "\n".join(silent)
