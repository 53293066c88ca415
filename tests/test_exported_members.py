"""The flat public namespace: what is in it is a promise, so a change of it is a change of this list."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import mnv3search

PUBLIC = [
    "Architecture",
    "BlockSpec",
    "Candidate",
    "Capabilities",
    "Counts",
    "Evaluation",
    "Evaluator",
    "EvaluatorContext",
    "HeadSpec",
    "ImagenetPrior",
    "InfeasibleError",
    "LatencyModel",
    "Mnv3SearchError",
    "NetAdaptOptions",
    "NetAdaptResult",
    "RooflineDevice",
    "SearchResult",
    "SearchSpace",
    "SqueezeExciteSpec",
    "StemSpec",
    "TrainedNetwork",
    "build_network",
    "count",
    "dump_architecture",
    "export_network",
    "fit_device",
    "load_architecture",
    "load_device",
    "load_evaluator",
    "load_recipe",
    "load_space",
    "load_trained",
    "netadapt",
    "open_data",
    "pareto_front",
    "parse_network",
    "plot_pareto",
    "prune",
    "published",
    "resume",
    "run",
    "search",
    "train_network",
]


def test_namespace_is_exactly_this() -> None:
    assert sorted(mnv3search.__all__) == PUBLIC


def test_type_checkers_see_the_same_names_from_the_same_places() -> None:
    tree = ast.parse(Path(mnv3search.__file__).read_text(encoding="utf-8"))
    declared = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mnv3search.")
        for alias in node.names
    }
    assert sorted(declared) == PUBLIC
    for name, module in declared.items():
        assert getattr(importlib.import_module(str(module)), name) is getattr(mnv3search, name)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_name_resolves_and_is_documented(name: str) -> None:
    member = getattr(mnv3search, name)
    assert (member.__doc__ or "").strip()


def test_dir_shows_every_name() -> None:
    assert set(PUBLIC) <= set(dir(mnv3search))


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        mnv3search.no_such_name  # noqa: B018


def test_no_submodule_hides_a_public_name() -> None:
    submodules = {module.name for module in pkgutil.iter_modules(mnv3search.__path__)}
    assert submodules & set(PUBLIC) == set()


def test_star_import_gives_every_name() -> None:
    code = f"from mnv3search import *\nmissing = set({PUBLIC!r}) - set(globals())\nassert not missing, missing"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
