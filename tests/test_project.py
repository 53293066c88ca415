"""The promises that the project makes about itself: names, dependencies, links, kept results, the two commands."""

from __future__ import annotations

import ast
import datetime
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("results/*/README.md")])
RESULTS = sorted(path for path in (ROOT / "results").iterdir() if path.is_dir()) if (ROOT / "results").is_dir() else []
RUNTIME_EXTRAS = ("openvino", "mnn", "litert")
VAGUE = {"utils", "util", "helpers", "helper", "common", "misc", "manager"}


def sources(*folders: str) -> Iterator[tuple[str, str]]:
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert [name for name, _ in sources("mnv3search", "benchmarks", "tests") if Path(name).stem in VAGUE] == []


def unsafe_calls(text: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Call):
            continue
        called, given = ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}
        loader = " ".join([*map(ast.unparse, node.args), *given.values()])
        if (
            re.fullmatch(r"(c?pickle|joblib|dill|marshal|shelve)\.\w*(load|loads|open|Unpickler)", called)
            or called in {"eval", "exec", "yaml.unsafe_load", "yaml.full_load"}
            or (called == "torch.load" and given.get("weights_only") != "True")
            or (called in {"yaml.load", "yaml.load_all", "yaml.compose"} and "SafeLoader" not in loader)
            or (called in {"np.load", "numpy.load"} and given.get("allow_pickle", "False") != "False")
            or given.get("shell") == "True"
        ):
            yield f"line {node.lineno}: {ast.unparse(node)}"


def test_nothing_is_unpickled_or_evaluated() -> None:
    found = [f"{name} {call}" for name, text in sources("mnv3search", "benchmarks") for call in unsafe_calls(text)]
    assert found == []


@pytest.mark.parametrize(
    ("call", "unsafe"),
    [
        ("pickle.load(f)", True),
        ("torch.load(f)", True),
        ("torch.load(f, weights_only=True)", False),
        ("yaml.load(f, Loader=yaml.Loader)", True),
        ("yaml.compose(f, Loader=yaml.SafeLoader)", False),
        ("subprocess.run(x, shell=True)", True),
        ("network.eval()", False),
    ],
)
def test_unsafe_calls_are_told_from_safe_ones(call: str, unsafe: bool) -> None:
    assert bool(list(unsafe_calls(call))) is unsafe


def requirement_names(requirements: list[str]) -> set[str]:
    return {re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0].lower().replace("_", "-") for line in requirements}


def undeclared(folders: tuple[str, ...], declared: set[str]) -> set[str]:
    own = {"mnv3search", "benchmarks"} | {path.stem for path in (ROOT / "tests").glob("*")}
    own |= {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
    imported = {
        name.split(".")[0]
        for _, text in sources(*folders)
        for node in ast.walk(ast.parse(text))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    distributions = packages_distributions()
    return {
        name
        for name in imported - own - set(sys.stdlib_module_names)
        if not {dist.lower().replace("_", "-") for dist in distributions.get(name, [name])} & declared
    }


def test_package_imports_only_what_it_declares() -> None:
    extras = [line for name in RUNTIME_EXTRAS for line in PROJECT["optional-dependencies"][name]]
    assert undeclared(("mnv3search",), requirement_names(PROJECT["dependencies"] + extras)) == set()


def test_tests_and_benchmarks_import_only_what_the_dev_extra_declares() -> None:
    declared = requirement_names(PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"])
    assert undeclared(("tests", "benchmarks"), declared) == set()


def test_changelog_speaks_of_this_version() -> None:
    headings = re.findall(r"^## \[([^\]]+)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert headings[0] == PROJECT["version"]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    text = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
    local = [target for target in targets if not re.match(r"[a-z]+:", target)]
    assert [target for target in local if not (document.parent / target).exists()] == []


@pytest.mark.parametrize("folder", RESULTS, ids=lambda path: path.name)
def test_kept_result_tells_how_it_was_made(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    datetime.date.fromisoformat(folder.name[:10])
    assert set(manifest) >= {"date", "command", "seeds", "hardware", "versions"}
    assert set(manifest["hardware"]) >= {"cpu", "cores"}
    assert not re.search(r"(^|[\s='\"])/\w", manifest["command"]), "a path of one machine"
    assert (folder / "README.md").read_text(encoding="utf-8").strip()
    assert len(list(folder.iterdir())) > 2, "no numbers beside the manifest and the README"


def planned(goal: str) -> list[str]:
    """What ``make`` would run in a fresh clone, without running it."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(
        ["make", "-n", "VENV=.no-such-venv", goal],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return [line.strip() for line in done.stdout.splitlines()]


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_goals_install_and_end_with_the_job() -> None:
    run, test = planned("run"), planned("test")
    assert any(line.endswith("--editable .") for line in run)
    assert run[-1].endswith("/mnv3search run --space mnv3_large --target-latency 50ms")
    assert any(line.endswith("--editable '.[dev]'") for line in test)
    assert "/pytest" in test[-1]


def test_ci_runs_what_make_test_runs() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "exec make test" in script.read_text(encoding="utf-8").splitlines()[-1]
