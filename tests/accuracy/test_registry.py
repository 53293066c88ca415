"""Evaluators by name, those of installed packages among them."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import Any

import pytest

from mnv3search.accuracy import registry
from mnv3search.accuracy.prior import ImagenetPrior
from mnv3search.errors import EvaluatorError, UnknownNameError


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
