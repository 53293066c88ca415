"""Short trainings as an evaluator: what is trained, kept, found again and given up."""

from __future__ import annotations

import errno
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from image_fakes import make_image_folder
from training_fakes import images as training_images

from mnv3search.accuracy.evaluator import Report
from mnv3search.accuracy.proxy import COST_STEPS, Proxy, ProxyOptions, spread
from mnv3search.accuracy.registry import EvaluatorContext, load_evaluator
from mnv3search.architecture import Architecture, HeadSpec, StemSpec
from mnv3search.blocks import BlockSpec
from mnv3search.errors import DataError, EvaluatorError, RunError, TrainingError, UnknownNameError
from mnv3search.training.data.open_data import open_data
from mnv3search.training.data.splits import DataSplits
from mnv3search.training.evaluation import evaluate_network
from mnv3search.training.recipe import load_recipe
from mnv3search.training.trained import load_trained, save_trained

NET = Architecture(StemSpec(8, stride=2), (BlockSpec(3, 16, 8, stride=2),), HeadSpec(None, None), 16, 3)
OTHER = Architecture(StemSpec(8, stride=2), (BlockSpec(5, 24, 8, stride=2),), HeadSpec(None, None), 16, 3)
SHORT = ProxyOptions(epochs=3)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSplits:
    return open_data(str(make_image_folder(tmp_path_factory.mktemp("images"), 3, per_class=10, side=16)))


def never(reports: Sequence[Report]) -> bool:
    raise AssertionError("a network that is known needs no training")


def test_every_epoch_is_reported_and_the_best_is_the_answer_and_what_is_kept(data: DataSplits, tmp_path: Path) -> None:
    (answer,) = Proxy(data, ProxyOptions(epochs=3, seed=1), folder=tmp_path).evaluate([NET])
    assert [epoch for epoch, _ in answer.reports] == [1, 2, 3]
    assert answer.top1 == max(top1 for _, top1 in answer.reports)
    trained = load_trained(next(tmp_path.glob("*.safetensors")))
    assert evaluate_network(trained.network, data.val, trained.preprocessing).top1 == answer.top1
    assert answer.top1 * len(data.val) / 100 == pytest.approx(round(answer.top1 * len(data.val) / 100), abs=1e-9)


@pytest.mark.parametrize(("per_class", "epochs"), [(100, 1), (30, 3), (30, None)])
def test_few_images_of_an_easy_set_are_learnt_and_no_network_says_one_class(
    tmp_path: Path, per_class: int, epochs: int | None
) -> None:
    easy = open_data(str(make_image_folder(tmp_path / "easy", 3, per_class=per_class, side=16)), scan=False)
    proxy = Proxy(easy, ProxyOptions(epochs=epochs), folder=tmp_path / "kept")
    (answer,) = proxy.evaluate([NET])
    chance = 100 / 3
    assert answer.top1 > chance + 4 * math.sqrt(chance * (100 - chance) / len(easy.val))
    trained = load_trained(next((tmp_path / "kept").glob("*.safetensors")))
    said = evaluate_network(trained.network, easy.val, trained.preprocessing).confusion.sum(axis=0)
    assert (said > 0).all()


def test_what_a_training_takes_is_the_steps_times_their_number(
    data: DataSplits, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([100.0, 102.0])
    monkeypatch.setattr("mnv3search.accuracy.proxy.time", SimpleNamespace(perf_counter=lambda: next(times)))
    proxy = Proxy(data, ProxyOptions(epochs=3, seeds=2))  # 30 images in batches of 8: 3 steps an epoch
    assert proxy.seconds_each(NET) == pytest.approx(2 / COST_STEPS * 3 * 3 * 2)


def test_few_images_are_gone_through_more_often() -> None:
    def epochs(images: int) -> int:
        few = training_images(per_class=images // 3)
        return Proxy(DataSplits(few, few, None)).epochs

    assert (epochs(30_000), epochs(3_333), epochs(3_000), epochs(999), epochs(30)) == (3, 4, 4, 11, 30)


def test_trained_networks_are_kept_and_found_again(data: DataSplits, tmp_path: Path) -> None:
    first = Proxy(data, SHORT, folder=tmp_path / "proxy").evaluate_until(NET, lambda _: False)
    (kept,) = (tmp_path / "proxy").glob("*.safetensors")
    trained = load_trained(kept)
    assert trained.architecture == NET
    assert trained.classes == data.train.classes
    assert Proxy(data, SHORT, folder=tmp_path / "proxy").evaluate_until(NET, never) == first


def test_other_options_or_networks_are_trained_anew(data: DataSplits, tmp_path: Path) -> None:
    for options in (SHORT, ProxyOptions(epochs=2), ProxyOptions(epochs=3, seed=1), ProxyOptions(epochs=3, images=9)):
        Proxy(data, options, folder=tmp_path).evaluate([NET])
    Proxy(data, SHORT, folder=tmp_path).evaluate([OTHER])
    assert len(list(tmp_path.glob("*.safetensors"))) == 5


def test_one_that_is_given_up_stops_there_and_is_not_kept(data: DataSplits, tmp_path: Path) -> None:
    asked: list[int] = []

    def after_two(reports: Sequence[Report]) -> bool:
        asked.append(len(reports))
        return len(reports) == 2

    proxy = Proxy(data, ProxyOptions(epochs=4), folder=tmp_path)
    answer = proxy.evaluate_until(NET, after_two)
    assert answer.stopped
    assert [epoch for epoch, _ in answer.reports] == asked == [1, 2]
    assert not list(tmp_path.glob("*"))


def test_nobody_is_asked_after_the_last_epoch(data: DataSplits) -> None:
    asked: list[int] = []

    def go_on(reports: Sequence[Report]) -> bool:
        asked.append(len(reports))
        return False

    answer = Proxy(data, SHORT).evaluate_until(NET, go_on)
    assert asked == [1, 2]
    assert not answer.stopped


def test_seeds_are_averaged(data: DataSplits) -> None:
    ones = [Proxy(data, ProxyOptions(epochs=1, seed=seed)).evaluate([NET])[0].top1 for seed in (0, 1)]
    (both,) = Proxy(data, ProxyOptions(epochs=1, seeds=2)).evaluate([NET])
    assert both.top1 == pytest.approx(sum(ones) / 2)


def test_a_lower_resolution_is_trained_and_kept(data: DataSplits, tmp_path: Path) -> None:
    Proxy(data, ProxyOptions(epochs=1, resolution=8), folder=tmp_path).evaluate([NET])
    (kept,) = tmp_path.glob("*.safetensors")
    trained = load_trained(kept)
    assert trained.architecture.resolution == trained.preprocessing.resolution == 8


def test_the_test_split_is_never_read(tmp_path: Path) -> None:
    root = make_image_folder(tmp_path, 3, per_class=8, side=16, split=("train", "val", "test"))
    splits = open_data(str(root))
    for file in (root / "test").rglob("*.png"):
        file.unlink()
    assert splits.test is not None
    assert math.isfinite(Proxy(splits, ProxyOptions(epochs=1)).evaluate([NET])[0].top1)


def test_the_spread_is_the_binomial_s_and_the_seeds() -> None:
    # 50 of 100 right, one added on either side: √(51/102 · 51/102 / 102)
    assert spread([50.0], 100) == pytest.approx(100 * math.sqrt(0.25 / 102))
    assert 0 < spread([100.0], 100) < 2
    # seeds at 40 and 60 have a variance of 200, their mean of 100
    assert spread([40.0, 60.0], 100) == pytest.approx(math.sqrt(1e4 * 0.25 / 102 + 100))


def test_a_training_that_diverges_has_the_accuracy_of_chance(
    data: DataSplits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mnv3search.training.steps.batch_loss", lambda logits, *_: logits.sum() * math.nan)
    answer = Proxy(data, SHORT, folder=tmp_path).evaluate_until(NET, lambda _: False)
    assert answer.stopped
    assert answer.top1 == pytest.approx(100 / 3)
    assert not list(tmp_path.glob("*"))


def test_what_the_machine_cannot_do_is_raised_and_not_taken_for_chance(
    data: DataSplits, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixed = replace(load_recipe("small_32"), precision="fp16")
    monkeypatch.setattr("mnv3search.training.recipe.load_recipe", lambda _: mixed)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(TrainingError, match="fp16 needs a CUDA device"):
        Proxy(data, SHORT).evaluate([NET])


def test_images_that_are_gone_are_raised_and_not_taken_for_chance(tmp_path: Path) -> None:
    root = make_image_folder(tmp_path, 3, per_class=4, side=70)  # too large to be in memory since the scan
    splits = open_data(str(root))
    (root / "train" / "class_1" / "0002.png").unlink()
    with pytest.raises(DataError, match=r"0002\.png"):
        Proxy(splits, SHORT).evaluate([NET])


def test_a_folder_that_cannot_be_made_and_a_full_disk_are_raised(
    data: DataSplits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    one = ProxyOptions(epochs=1)
    with pytest.raises(RunError, match="cannot make the folder"):
        Proxy(data, one, folder=tmp_path / "file" / "proxy").evaluate([NET])

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RunError, match="No space left"):
        Proxy(data, one, folder=tmp_path / "proxy").evaluate([NET])
    assert not list((tmp_path / "proxy").iterdir())


def test_other_classes_are_refused(data: DataSplits) -> None:
    with pytest.raises(DataError, match=r"3 classes.*10 logits"):
        Proxy(data, SHORT).evaluate([NET.with_classes(10)])


def test_a_damaged_report_is_said(data: DataSplits, tmp_path: Path) -> None:
    Proxy(data, SHORT, folder=tmp_path).evaluate([NET])
    (kept,) = tmp_path.glob("*.safetensors")
    save_trained(kept, replace(load_trained(kept), facts={"proxy": "none"}))
    with pytest.raises(EvaluatorError, match="delete it"):
        Proxy(data, SHORT, folder=tmp_path).evaluate([NET])


def test_by_name(data: DataSplits) -> None:
    proxy = load_evaluator("proxy:epochs=2,images=12,resolution=8", EvaluatorContext(data=data))
    assert isinstance(proxy, Proxy)
    assert proxy.options == ProxyOptions(epochs=2, images=12, resolution=8)
    with pytest.raises(EvaluatorError, match="--data"):
        load_evaluator("proxy")
    with pytest.raises(UnknownNameError, match="epochs"):
        load_evaluator("proxy:epoch=2", EvaluatorContext(data=data))
    with pytest.raises(UnknownNameError, match="recipe of the ImageNet prior 'x'"):
        load_evaluator("prior:x")
