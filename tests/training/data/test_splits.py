"""Held-out parts and subsets: by names alone, so that they stay as they are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnv3search.errors import DataError
from mnv3search.training.data.images import ArraySource, LabelledImages
from mnv3search.training.data.splits import held_out, stable_subset

SOURCE = ArraySource("none", {})
PINNED_HELD = ("c0/1.jpg", "c0/3.jpg", "c0/5.jpg", "c0/8.jpg", "c1/1.jpg")
PINNED_SUBSET = ("c0/2.jpg", "c0/9.jpg", "c0/10.jpg", "c0/11.jpg", "c1/0.jpg")


def labelled(counts: list[int], folder: str = "") -> LabelledImages:
    """As many images of each class as ``counts`` says."""
    files = tuple(f"{folder}c{label}/{number}.jpg" for label, count in enumerate(counts) for number in range(count))
    labels = np.repeat(np.arange(len(counts)), counts)
    return LabelledImages(SOURCE, files, labels, tuple(f"c{label}" for label in range(len(counts))))


counts_of_classes = st.lists(st.integers(2, 60), min_size=1, max_size=5)
shares = st.floats(0.02, 0.98)


@given(counts=counts_of_classes, share=shares, salt=st.text(max_size=5))
def test_every_image_is_on_one_side_and_every_class_on_both(counts: list[int], share: float, salt: str) -> None:
    images = labelled(counts)
    rest, held = held_out(images, share, salt)
    assert set(rest.files) | set(held.files) == set(images.files)
    assert len(rest) + len(held) == len(images)
    assert set(rest.labels) == set(held.labels) == set(images.labels)
    for part in (rest, held):
        assert [f"c{label}" for label in part.labels] == [file.split("/")[0] for file in part.files]
        assert list(part.files) == [file for file in images.files if file in set(part.files)]


@given(counts=st.lists(st.integers(30, 80), min_size=1, max_size=3), more=st.integers(1, 40), share=st.floats(0.2, 0.8))
def test_added_files_move_none(counts: list[int], more: int, share: float) -> None:
    before, after = labelled(counts), labelled([count + more for count in counts])
    held_before, held_after = (set(held_out(images, share)[1].files) for images in (before, after))
    assert held_before == held_after & set(before.files)


def test_added_classes_and_another_folder_move_none() -> None:
    alone = held_out(labelled([50, 50]), 0.3)[1].files
    beside = held_out(labelled([50, 50, 50], folder="archive/train/"), 0.3)[1].files
    assert [file.removeprefix("archive/train/") for file in beside if "c2/" not in file] == list(alone)


def test_share_is_held_of_each_class() -> None:
    _, held = held_out(labelled([4000, 1000]), 0.1)
    held_of_each = np.bincount(held.labels)
    assert abs(held_of_each[0] - 400) < 80  # four standard deviations of a binomial
    assert abs(held_of_each[1] - 100) < 40


def test_another_salt_holds_others() -> None:
    images = labelled([200])
    first, second = (set(held_out(images, 0.5, salt)[1].files) for salt in ("a", "b"))
    assert 20 < len(first & second) < 80


def test_held_files_do_not_change_between_versions() -> None:
    """What was held out once must be so for good: other figures were chosen by it."""
    assert held_out(labelled([12, 3]), 0.25)[1].files == PINNED_HELD
    assert stable_subset(labelled([12, 3]), 5).files == PINNED_SUBSET


def test_class_with_one_image_cannot_be_cut() -> None:
    with pytest.raises(DataError, match=r"class 'c1' has one image \(c1/0\.jpg\).*add images or a split of your own"):
        held_out(labelled([5, 1]), 0.5)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_share_is_checked(share: float) -> None:
    with pytest.raises(DataError, match="must be above 0 and below 1"):
        held_out(labelled([5]), share)


@given(counts=counts_of_classes, data=st.data())
def test_subset_has_its_size_and_the_classes_in_proportion(counts: list[int], data: st.DataObject) -> None:
    images = labelled(counts)
    count = data.draw(st.integers(len(counts), len(images)))
    part = stable_subset(images, count)
    assert len(part) == len(set(part.files)) == count
    assert list(part.files) == [file for file in images.files if file in set(part.files)]
    exact = np.array(counts) * count / len(images)
    of_each = np.bincount(part.labels, minlength=len(counts))
    assert of_each.min() >= 1
    assert np.all(of_each <= counts)
    if exact.min() >= 1:
        assert np.all(np.abs(of_each - exact) < 1)


@given(counts=st.lists(st.integers(2, 9), min_size=2, max_size=4))
def test_smaller_subset_is_part_of_the_larger(counts: list[int]) -> None:
    images = labelled([count * 10 for count in counts])
    smaller, larger = (set(stable_subset(images, sum(counts) * factor).files) for factor in (1, 4))
    assert smaller < larger


@pytest.mark.parametrize("count", [1, 16])
def test_subset_of_too_few_or_too_many_is_refused(count: int) -> None:
    with pytest.raises(DataError, match=f"a subset of {count} images must have at least one for each of 2 classes"):
        stable_subset(labelled([10, 5]), count)
