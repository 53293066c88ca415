"""Evaluators by name, those of installed packages among them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from image_fakes import make_image_folder
from search_fakes import UnitLatency, small_space

from mnv3search.accuracy import registry
from mnv3search.accuracy.evaluator import Capabilities, Evaluation
from mnv3search.accuracy.prior import ImagenetPrior
from mnv3search.accuracy.registry import EvaluatorContext
from mnv3search.architecture import Architecture
from mnv3search.block_search import search
from mnv3search.errors import EvaluatorError, UnknownNameError
from mnv3search.runs.session import start_run
from mnv3search.runs.settings import RunSettings
from mnv3search.training.data.open_data import open_data


class Constant:
    """An evaluator as a package may register it."""

    def evaluate(self, architectures: Any) -> list[Any]:
        return []


def no_evaluator() -> object:
    return object()


def broken() -> object:
    raise OSError("no weights here")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    module = __name__
    targets = {"constant": f"{module}:Constant", "none": f"{module}:no_evaluator", "broken": f"{module}:broken"}
    points = [EntryPoint(name, value, registry.ENTRY_POINT_GROUP) for name, value in targets.items()]
    points.append(EntryPoint("gone", "mnv3search_no_such_package:evaluator", registry.ENTRY_POINT_GROUP))
    monkeypatch.setitem(__import__("sys").modules, module, __import__("types").SimpleNamespace(**globals()))

    def entry_points(*, group: str, name: str | None = None) -> list[EntryPoint]:
        assert group == "mnv3search.evaluators"
        return [point for point in points if name in (None, point.name)]

    monkeypatch.setattr(registry, "entry_points", entry_points)


def test_the_prior_needs_no_package() -> None:
    assert isinstance(registry.load_evaluator("prior"), ImagenetPrior)


def test_the_prior_s_option_is_its_recipe() -> None:
    prior = registry.load_evaluator("prior:once_for_all")
    assert isinstance(prior, ImagenetPrior)
    assert prior.recipe == "once_for_all"
    with pytest.raises(UnknownNameError, match="recipe of the ImageNet prior"):
        registry.load_evaluator("prior:mine")


@pytest.mark.usefixtures("installed")
def test_an_installed_package_adds_one() -> None:
    assert type(registry.load_evaluator("constant")).__name__ == "Constant"
    assert registry.evaluator_names() == ["broken", "constant", "gone", "none", "prior", "proxy", "zero_cost"]


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("name", "words"),
    [("none", "no evaluate"), ("broken", "no weights here"), ("gone", "mnv3search_no_such_package")],
)
def test_what_is_registered_and_is_none_is_said(name: str, words: str) -> None:
    with pytest.raises(EvaluatorError, match=words):
        registry.load_evaluator(name)


@pytest.mark.usefixtures("installed")
def test_an_unknown_name_lists_the_installed() -> None:
    with pytest.raises(UnknownNameError, match="constant"):
        registry.load_evaluator("constnat")


class Counting:
    """An evaluator of another package: its answers follow from the space and the options."""

    last: EvaluatorContext

    def __init__(self, context: EvaluatorContext) -> None:
        assert context.space is not None
        assert context.data is not None
        self.blocks = len(context.space.reference.blocks)
        self.made_with = Counting.last = context
        self.capabilities = Capabilities(cheap=True, score_name="blocks", identity=f"counting {context.options}")

    def evaluate(self, architectures: Sequence[Architecture]) -> list[Evaluation]:
        """How many blocks a network has more than the space's reference, times the option."""
        return [Evaluation(float(self.made_with.options) * (len(a.blocks) - self.blocks)) for a in architectures]


@pytest.fixture
def counting_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that is installed and registers :class:`Counting`."""
    facts = tmp_path / "site" / "counting-1.0.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: counting\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[mnv3search.evaluators]\ncounting = counting:Counting\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setitem(sys.modules, "counting", SimpleNamespace(Counting=Counting))


@pytest.mark.usefixtures("counting_package")
def test_an_installed_evaluator_is_made_with_space_data_and_options_and_searches(tmp_path: Path) -> None:
    space = small_space("blocks")
    data = open_data(str(make_image_folder(tmp_path / "images", 10, per_class=3, side=16)))
    context = EvaluatorContext(space, data, options="ignored", folder=tmp_path)
    evaluator = registry.load_evaluator("counting:2.5", context)
    assert isinstance(evaluator, Counting)
    assert evaluator.made_with == replace(context, options="2.5")
    found = search(space, UnitLatency(), evaluator, trials=20, storage=tmp_path / "study.log")
    assert found.best.top1 == 2.5 * (max(len(c.architecture.blocks) for c in found.candidates) - evaluator.blocks)
    assert "counting 2.5" in (tmp_path / "study.log").read_text()


@pytest.mark.usefixtures("counting_package")
def test_an_installed_evaluator_is_used_by_a_run_that_names_it(tmp_path: Path) -> None:
    images = make_image_folder(tmp_path / "images", 10, per_class=3, side=16)
    settings = RunSettings(
        kind="search", subject="mnv3_small_32", target="2x", device="pixel1", evaluator="counting:2.5",
        data=str(images), trials=4,
    )  # fmt: skip
    outcome = start_run(settings, tmp_path / "run")
    assert outcome.summary.best.architecture.classes == 10
    assert outcome.summary.best.top1 is not None
    assert outcome.summary.best.top1 % 2.5 == 0
    assert Counting.last.space is not None
    assert Counting.last.data is not None
    assert Counting.last.space.skeleton.classes == len(Counting.last.data.train.classes) == 10


@pytest.mark.usefixtures("installed")
def test_one_without_a_context_takes_no_options() -> None:
    with pytest.raises(EvaluatorError, match="'constant' takes no options, and 'x=1' was given"):
        registry.load_evaluator("constant:x=1")


@pytest.mark.parametrize(
    "factory",
    [
        Counting,
        lambda given, /: Counting(given),
        lambda seed=0, context=None: Counting(context),
        lambda *, context: Counting(context),
    ],
)
def test_the_context_reaches_a_factory_by_name_or_as_its_first(factory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "entry_points", lambda **_: [SimpleNamespace(load=lambda: factory)])
    context = EvaluatorContext(small_space("blocks"), data=object())  # type: ignore[arg-type]
    evaluator = registry.load_evaluator("mine:2", context)
    assert isinstance(evaluator, Counting)
    assert evaluator.made_with == replace(context, options="2")
