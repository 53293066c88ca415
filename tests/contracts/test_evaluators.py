"""What every accuracy evaluator must keep to; one joins by being added to ``EVALUATORS``.

A package with an evaluator of its own subclasses :class:`EvaluatorContract` and overrides the fixture ``evaluator``
(and ``networks``, where it cannot answer for ImageNet networks).
"""

from __future__ import annotations

import math
import pickle
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
from image_fakes import make_image_folder

from mnv3search.accuracy.evaluator import Capabilities, Evaluation, Evaluator, capabilities_of, checked_evaluations
from mnv3search.accuracy.prior import ImagenetPrior
from mnv3search.accuracy.proxy import Proxy, ProxyOptions
from mnv3search.accuracy.zero_cost import SCORES, ZeroCost
from mnv3search.architecture import Architecture, HeadSpec, StemSpec
from mnv3search.blocks import BlockSpec
from mnv3search.cost import count
from mnv3search.errors import ArchitectureError, EvaluatorError
from mnv3search.families import published
from mnv3search.latency.devices import load_device
from mnv3search.training.data.open_data import open_data
from mnv3search.training.data.splits import DataSplits


class MaddsEvaluator:
    """The least that is an evaluator: a score from counts, with no deviation."""

    def evaluate(self, architectures: Sequence[Architecture]) -> list[Evaluation]:
        """Base-10 logarithm of MAdds."""
        return [Evaluation(math.log10(count(architecture).madds)) for architecture in architectures]


EVALUATORS: dict[str, Callable[[], Evaluator]] = {
    "prior": ImagenetPrior,
    "minimal": MaddsEvaluator,
    **{f"zero_cost:{score}": partial(ZeroCost, score, images=4, resolution=32) for score in SCORES},
}


class EvaluatorContract:
    """The tests; ``evaluator`` gives the one under test and ``networks`` what it is asked about."""

    @pytest.fixture(params=EVALUATORS)
    def evaluator(self, request: pytest.FixtureRequest) -> Evaluator:
        return EVALUATORS[request.param]()

    @pytest.fixture
    def networks(self) -> tuple[Architecture, ...]:
        return (
            published("mobilenet_v3_large"),
            published("mobilenet_v3_small", 0.5, 96),
            published("mobilenet_v2"),
            published("mobilenet_v3_large_xiaolai"),
        )

    def test_is_one(self, evaluator: Evaluator) -> None:
        assert isinstance(evaluator, Evaluator)

    def test_one_finite_evaluation_for_each_network(
        self, evaluator: Evaluator, networks: tuple[Architecture, ...]
    ) -> None:
        answers = checked_evaluations(evaluator, networks)
        assert len(answers) == len(networks)
        assert all(isinstance(answer, Evaluation) and math.isfinite(answer.top1) for answer in answers)

    def test_a_deviation_is_positive_or_unknown(self, evaluator: Evaluator, networks: tuple[Architecture, ...]) -> None:
        deviations = [answer.top1_std for answer in evaluator.evaluate(networks)]
        assert all(std is None or 0 < std < math.inf for std in deviations)

    def test_keeps_the_order(self, evaluator: Evaluator, networks: tuple[Architecture, ...]) -> None:
        forward, backward = evaluator.evaluate(networks), evaluator.evaluate(networks[::-1])
        assert [a.top1 for a in forward] == pytest.approx([a.top1 for a in backward][::-1], abs=1e-5)

    def test_the_batch_does_not_matter(self, evaluator: Evaluator, networks: tuple[Architecture, ...]) -> None:
        together = [answer.top1 for answer in evaluator.evaluate(networks)]
        assert [evaluator.evaluate([network])[0].top1 for network in networks] == pytest.approx(together, abs=1e-5)

    def test_same_question_same_answer(self, evaluator: Evaluator, networks: tuple[Architecture, ...]) -> None:
        assert list(evaluator.evaluate(networks)) == list(evaluator.evaluate(list(networks)))

    def test_nothing_asked_nothing_answered(self, evaluator: Evaluator) -> None:
        assert list(evaluator.evaluate([])) == []

    def test_says_what_it_can_in_one_value(self, evaluator: Evaluator) -> None:
        can = capabilities_of(evaluator)
        assert can.identity
        assert can == capabilities_of(evaluator)
        assert getattr(evaluator, "capabilities", Capabilities()) in {can, Capabilities()}


class TestEvaluators(EvaluatorContract):
    pass


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSplits:
    return open_data(str(make_image_folder(tmp_path_factory.mktemp("images"), 3, per_class=8, side=16)))


class TestProxy(EvaluatorContract):
    """Networks of a kilobyte, trained anew at every question."""

    @pytest.fixture
    def evaluator(self, data: DataSplits) -> Evaluator:
        return Proxy(data, ProxyOptions(epochs=1))

    @pytest.fixture
    def networks(self) -> tuple[Architecture, ...]:
        return tuple(
            Architecture(StemSpec(8, stride=2), (BlockSpec(3, 8 * ratio, 8, stride=2),), HeadSpec(None, None), 16, 3)
            for ratio in (1, 2)
        )


class _Broken:
    capabilities = Capabilities()

    def __init__(self, answers: list[Evaluation]) -> None:
        self.answers = answers

    def evaluate(self, architectures: Sequence[Architecture]) -> list[Evaluation]:
        return self.answers


@pytest.mark.parametrize(
    ("answers", "says"),
    [([], "0 evaluations for 1"), ([Evaluation(math.nan)], "not finite"), ([Evaluation(math.inf)], "not finite"),
     (None, "None; give a list"), (Evaluation(70.0), "give a list"),
     ([Evaluation("70")], "'70', which is no number")],  # type: ignore[arg-type]
)  # fmt: skip
def test_an_unusable_answer_is_refused_by_name(answers: Any, says: str) -> None:
    with pytest.raises(EvaluatorError, match=f"_Broken gave .*{says}"):
        checked_evaluations(_Broken(answers), [published("mobilenet_v2")])


@pytest.mark.parametrize("top1", [-0.1, 100.1])
def test_a_percentage_is_from_0_to_100_and_a_score_is_not(top1: float) -> None:
    evaluator = _Broken([Evaluation(top1)])
    with pytest.raises(EvaluatorError, match=r"not from 0 to 100.*score_name"):
        checked_evaluations(evaluator, [published("mobilenet_v2")])
    evaluator.capabilities = Capabilities(score_name="loss, turned round")
    assert checked_evaluations(evaluator, [published("mobilenet_v2")]) == [Evaluation(top1)]


def test_capabilities_of_another_type_are_refused() -> None:
    evaluator = _Broken([])
    evaluator.capabilities = {"cheap": True}  # type: ignore[assignment]
    with pytest.raises(EvaluatorError, match=r"_Broken states capabilities .*; give a Capabilities"):
        capabilities_of(evaluator)


@pytest.mark.parametrize(
    ("former", "stated"),
    [
        ({"cheap": True}, "cheap=True"),
        ({"estimated": True, "cheap": True}, "cheap=True, estimated=True"),
        ({"score_name": "blocks"}, "score_name='blocks'"),
        ({"identity": "mine v2"}, "identity='mine v2'"),
        ({"trains": True, "chance": 2.5}, "trains=True, chance=2.5"),
        ({"trained_file": lambda self, architecture: None}, "trained_file=self.trained_file"),
    ],
)
def test_what_was_said_in_single_attributes_is_refused_with_the_capabilities_to_state(
    former: dict[str, Any], stated: str
) -> None:
    evaluator = type("Old", (MaddsEvaluator,), former)()
    with pytest.raises(
        EvaluatorError, match=re.escape(f"state capabilities = Capabilities({stated}) instead")
    ) as error:
        checked_evaluations(evaluator, [published("mobilenet_v2")])
    assert "\n" not in str(error.value)
    evaluator.capabilities = Capabilities(cheap=True)
    assert capabilities_of(evaluator).cheap


def test_attributes_of_before_that_say_what_is_the_default_are_no_error() -> None:
    former = {"cheap": False, "estimated": False, "trains": False, "score_name": None, "chance": 0.0}
    assert capabilities_of(type("Old", (MaddsEvaluator,), former)()) == Capabilities(identity="Old")


@pytest.mark.parametrize("ask", [ImagenetPrior().evaluate, load_device("pixel1").latency_ms])
def test_names_where_architectures_are_taken_are_refused_in_words(ask: Callable[[Any], object]) -> None:
    with pytest.raises(ArchitectureError, match="not str 'mobilenet_v2'; give an Architecture, such as parse_network"):
        ask(["mobilenet_v2"])


@pytest.mark.parametrize("report", [(0, 50.0), (1, float("nan")), (1, 100.5), (1.5, 50.0), ("1", 50.0)])
def test_reports_that_could_not_be_read_again_are_refused(report: Any) -> None:
    evaluator = _Broken([Evaluation(60.0, None, (report,))])
    with pytest.raises(EvaluatorError, match=r"_Broken reported .* after epoch .*; give epochs from 1"):
        checked_evaluations(evaluator, [published("mobilenet_v2")])


def test_capabilities_can_be_sent_to_another_process() -> None:
    assert pickle.dumps(Capabilities(estimated=True))
    assert pickle.dumps(ZeroCost("madds"))
