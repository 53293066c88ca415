"""The house rules on imports: one way between the parts, and heavy packages only where and when they are used."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "mnv3search"

# Each line may import from the lines above it, and a part from itself.
ORDER = (
    ("errors",),
    ("reading",),
    ("blocks",),
    ("architecture", "files", "records", "threads", "trained_header"),
    ("candidate", "layers", "log"),
    ("manifest",),
    ("families", "cost"),
    ("space",),
    ("naming",),
    ("graph",),
    ("network",),
    ("latency",),
    ("training",),
    ("execution",),
    ("accuracy", "export"),
    ("block_search", "layer_search"),
    ("report",),
    ("runs",),
    ("cli",),
)
LEVEL = {part: level for level, parts in enumerate(ORDER) for part in parts}
# The flat public namespace stands on everything but the command line; `python -m mnv3search` is the command line.
LEVEL |= {"__init__": LEVEL["cli"], "__main__": LEVEL["cli"] + 1}

# Which modules may import a package at all, by the start of their name; the others may be used anywhere in functions.
HOMES = {
    "torch": (
        "network",
        "latency.runtimes.torch",
        "latency.runtimes.litert",
        "training",
        "export",
        "accuracy.zero_cost",
        "accuracy.proxy",
        "layer_search",
    ),
    "torchvision": ("network", "training"),
    "accelerate": ("training",),
    "optuna": ("block_search",),
    "matplotlib": ("report",),
    "openvino": ("latency.runtimes.openvino",),
    "MNN": ("latency.runtimes.mnn",),
    "ai_edge_litert": ("latency.runtimes.litert",),
    "litert_torch": ("latency.runtimes.litert",),
}
HEAVY = {
    "torch", "torchvision", "matplotlib", "onnx", "onnxruntime", "pandas", "scipy", "optuna", "fvcore", "openvino",
    "MNN", "ai_edge_litert", "litert_torch", "accelerate", "PIL", "tensorboard",
}  # fmt: skip
# An nn.Module has to name its base when it is defined, so these import torch at the top and are themselves imported in
# functions only.
DEFINE_MODULES = ("network", "training.rmsprop")


class Import(NamedTuple):
    target: str
    line: int
    at_import: bool  # runs when the module is imported: neither in a function nor under TYPE_CHECKING


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


@cache
def imports(source: str) -> tuple[Import, ...]:
    """Every import of a module; each is parsed once for all rules."""
    return tuple(_imports(source))


def _imports(source: str) -> Iterator[Import]:
    pending: list[tuple[ast.AST, bool]] = [(ast.parse(source), True)]
    while pending:
        node, at_import = pending.pop()
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, at_import) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import; name the package in full"
            module = node.module or ""
            for name in (f"{module}.{alias.name}" for alias in node.names):
                is_module = module == "mnv3search" or name.removeprefix("mnv3search.") in MODULES
                yield Import(name if is_module else module, node.lineno, at_import)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending += [(child, False) for child in node.body]
            pending += [(child, at_import) for child in node.orelse]
        else:
            inner = at_import and not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            pending += [(child, inner) for child in ast.iter_child_nodes(node)]


def is_in(module: str, homes: tuple[str, ...]) -> bool:
    return any(module == home or module.startswith((home + ".", home + "_")) for home in homes)


def wrong_direction(module: str, source: str) -> list[str]:
    part = module.split(".", maxsplit=1)[0]
    found = []
    for target, line, _ in imports(source):
        package, _, rest = target.partition(".")
        if package != "mnv3search":
            continue
        other = rest.split(".")[0] if rest else "__init__"
        if other != part and LEVEL.get(other, len(ORDER) + 2) >= LEVEL[part]:
            found.append(f"{module}:{line} imports {target}: {part} stands below or beside {other}")
    return found


def wrong_home(module: str, source: str) -> list[str]:
    return [
        f"{module}:{line} imports {target}, which belongs to {', '.join(HOMES[package])} alone"
        for target, line, _ in imports(source)
        if (package := target.split(".")[0]) in HOMES and not is_in(module, HOMES[package])
    ]


def heavy_at_import(module: str, source: str) -> list[str]:
    found = []
    for target, line, at_import in imports(source):
        if not at_import:
            continue
        package, _, rest = target.partition(".")
        if package in HEAVY and not (package == "torch" and is_in(module, DEFINE_MODULES)):
            found.append(f"{module}:{line} imports {target} at the top: import it in the function that needs it")
        if package == "mnv3search" and is_in(rest, DEFINE_MODULES) and not is_in(module, DEFINE_MODULES):
            found.append(f"{module}:{line} imports {target}, and with it torch, at the top")
    return found


def imported_modules(source: str) -> set[str]:
    """The modules of the package that ``source`` imports anywhere: at the top, in functions, for types alone."""
    found = set()
    for target, _, _ in imports(source):
        package, _, rest = target.partition(".")
        while rest and rest not in MODULES:
            rest = rest.rpartition(".")[0]
        if package == "mnv3search":
            found.add(rest or "__init__")
    return found


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """The modules of one circle of imports, the first again at the end; empty where there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_modules_import_one_another_in_no_circle() -> None:
    graph = {m: imported_modules(path.read_text(encoding="utf-8")) - {m} for m, path in MODULES.items()}
    assert circle(graph) == []


def test_circles_are_seen_wherever_the_import_stands() -> None:
    lazy = imported_modules("def f():\n    from mnv3search.space.space import SearchSpace\n")
    typing_only = imported_modules("if TYPE_CHECKING:\n    from mnv3search.space import tables\n")
    assert (lazy, typing_only) == ({"space.space"}, {"space.tables"})
    assert sorted(set(circle({"space.tables": lazy, "space.space": typing_only}))) == ["space.space", "space.tables"]
    assert circle({"space.space": typing_only, "space.tables": set()}) == []


def test_every_part_has_its_place_in_the_order() -> None:
    assert {module.split(".")[0] for module in MODULES} - set(LEVEL) == set()


@pytest.mark.parametrize("rule", [wrong_direction, wrong_home, heavy_at_import])
def test_no_module_breaks(rule: object) -> None:
    assert callable(rule)
    broken = [line for module, path in MODULES.items() for line in rule(module, path.read_text(encoding="utf-8"))]
    assert broken == []


def test_rules_see_what_they_forbid() -> None:
    assert wrong_direction("space", "def f():\n    from mnv3search.cli import main\n")
    assert wrong_direction("families.rows", "from mnv3search import cost\n")
    assert wrong_direction("cost", "from mnv3search import count\n")
    assert not wrong_direction("cost", "from mnv3search.layers import Unit\n")
    assert wrong_home("accuracy.prior", "def f():\n    import torch.nn\n")
    assert not wrong_home("latency.runtimes.torch_eager", "import torch\n")
    assert heavy_at_import("report.plots", "try:\n    import matplotlib.pyplot as plt\nexcept ImportError:\n    pass\n")
    assert heavy_at_import("__init__", "from mnv3search.network.build import Network\n")
    assert not heavy_at_import("graph.emit", "if TYPE_CHECKING:\n    import onnx\ndef f():\n    import onnx\n")


def loaded_by(code: str) -> set[str]:
    """The top-level packages that a fresh interpreter has loaded after ``code``."""
    report = "import json as j, sys as s\nprint('\\n' + j.dumps(sorted({m.split('.')[0] for m in s.modules})))"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_import_loads_nothing_heavy() -> None:
    light = [name for name in MODULES if not is_in(name, DEFINE_MODULES) and name != "__main__"]
    names = ["mnv3search" if name == "__init__" else f"mnv3search.{name}" for name in light]
    loaded = loaded_by(f"import importlib\nfor name in {names!r}:\n    importlib.import_module(name)")
    assert "mnv3search" in loaded
    assert loaded & HEAVY == set()


def command(*words: str) -> str:
    return (
        f"import runpy, sys\nsys.argv = ['mnv3search', *{words!r}]\n"
        "try:\n    runpy.run_module('mnv3search', run_name='__main__')\n"
        "except SystemExit as end:\n    assert not end.code, end.code"
    )


def test_help_loads_nothing_heavy() -> None:
    assert loaded_by(command("--help")) & {*HEAVY, "numpy", "rich"} == set()


@pytest.mark.parametrize("words", [("spaces",), ("devices",), ("tables",), ("count", "mobilenet_v3_large")])
def test_light_commands_start_without_torch(words: tuple[str, ...]) -> None:
    assert loaded_by(command(*words)) & {"torch", "torchvision"} == set()


@pytest.mark.slow
def test_search_with_the_prior_needs_no_torch(tmp_path: Path) -> None:
    words = ("--space", "mnv3_small", "--target-latency", "15ms", "--trials", "64", "--out", str(tmp_path / "found"))
    assert loaded_by(command("search", *words)) & {"torch", "torchvision"} == set()
    assert (tmp_path / "found" / "best.json").is_file()
