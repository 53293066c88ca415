"""Small images in memory: what is kept, decoded once, shared, and that batches of it depend on the images alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from image_fakes import make_image_folder
from numpy.typing import NDArray
from PIL import Image

from mnv3search.training.data import memory
from mnv3search.training.data.augmentation import Augmentation
from mnv3search.training.data.batches import Batch, Batches
from mnv3search.training.data.images import FolderSource, LabelledImages
from mnv3search.training.data.memory import in_memory
from mnv3search.training.data.open_data import open_data, open_images
from mnv3search.training.data.preprocessing import Preprocessing

UNEQUAL = ((16, 16), (16, 20), (64, 9), (7, 30), (16, 16), (20, 16))
PREPROCESSING = Preprocessing(12)
PAD = Augmentation(crop="pad", pad=2, flip=True, randaugment=9)
PARTS = Augmentation(crop="random_resized", flip=True)


class CountingSource(FolderSource):
    """A folder that counts how often its images are read."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.reads = 0

    def encoded(self, file: str) -> bytes:
        self.reads += 1
        return super().encoded(file)


def folder(root: Path, sizes: Sequence[tuple[int, int]]) -> LabelledImages:
    """Images of these heights and widths, of two classes, whose source counts."""
    generator = np.random.default_rng(len(sizes))
    for number, (height, width) in enumerate(sizes):
        place = root / f"c{number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"{number:03d}.png")
    found = open_images(str(root))
    order = sorted(range(len(found)), key=lambda index: found.files[index][-7:])
    return LabelledImages(CountingSource(root), found.files, found.labels, found.classes).subset(order)


def reads(images: LabelledImages) -> int:
    assert isinstance(images.source, CountingSource)
    return images.source.reads


def kept(images: LabelledImages) -> list[NDArray[np.uint8]]:
    found = in_memory(images)
    assert found is not None
    return found


def epoch(images: LabelledImages, augmentation: Augmentation | None = None, **options: int) -> list[Batch]:
    batches = Batches(images, PREPROCESSING, 4, augmentation=augmentation, shuffle=augmentation is not None)
    return list(batches.epoch(3, **options))


def same(one: Sequence[Batch], other: Sequence[Batch]) -> bool:
    assert len(one) == len(other) > 0
    return all(torch.equal(a.images, b.images) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("sizes", [UNEQUAL, ((16, 16),) * 6])
def test_small_images_of_any_sizes_are_decoded_once(tmp_path: Path, sizes: Sequence[tuple[int, int]]) -> None:
    images = folder(tmp_path, sizes)
    pixels: list[NDArray[np.uint8]] = [images.read(index) for index in range(len(images))]
    before = reads(images)
    assert [kept(images)[index].shape[:2] for index in range(len(images))] == list(sizes)
    for _ in range(2):
        epoch(images, PAD)
        epoch(images, PARTS)
    assert reads(images) == before + len(images)
    for index, expected in enumerate(pixels):
        np.testing.assert_array_equal(kept(images)[index], expected)


@pytest.mark.parametrize("split", ["train", "val"])
def test_what_the_scan_decoded_serves_the_batches(tmp_path: Path, split: str) -> None:
    for label in ("a", "b"):
        for part, side in (("train", 16), ("val", 18)):
            make_image_folder(tmp_path, [label], 3, side=side + (label == "b"), split=(part,))
    data = open_data(str(tmp_path))
    for file in tmp_path.rglob("*.png"):
        file.unlink()
    images = data.train if split == "train" else data.val
    assert len(epoch(images, PAD)) == 2


def test_unequal_images_are_prepared_as_the_ones_to_judge_by(tmp_path: Path) -> None:
    images = folder(tmp_path, UNEQUAL)
    got = torch.cat([batch.images for batch in epoch(images)])
    expected = torch.stack([PREPROCESSING.to_tensor(images.read(index)[None])[0] for index in range(len(images))])
    assert torch.equal(got, expected)


@pytest.mark.parametrize("augmentation", [PAD, PARTS])
def test_batches_of_unequal_images_are_the_same_from_any_step_and_in_parts(
    tmp_path: Path, augmentation: Augmentation
) -> None:
    images = folder(tmp_path, UNEQUAL)
    whole = epoch(images, augmentation)
    assert same(epoch(images, augmentation, start=1), whole[1:])
    halves = [
        Batches(images, PREPROCESSING, 4, augmentation=augmentation, shuffle=True, rank=rank, world=2)
        for rank in (0, 1)
    ]
    parts = [list(half.epoch(3)) for half in halves]
    assert torch.equal(torch.cat([parts[0][0].images, parts[1][0].images]), whole[0].images)


@pytest.mark.parametrize("augmentation", [PAD, PARTS])
@pytest.mark.parametrize("others", [(), ((70, 70),), ((9, 40), (33, 33))])
def test_batches_do_not_depend_on_what_else_of_the_source_was_asked_for(
    tmp_path: Path, others: Sequence[tuple[int, int]], augmentation: Augmentation
) -> None:
    for name, sizes in (("equal", ((16, 16),) * 6), ("unequal", UNEQUAL)):
        every = folder(tmp_path / name, (*sizes, *others))
        images = every.subset(range(6))
        alone = epoch(images, augmentation)
        again = LabelledImages(CountingSource(tmp_path / name), every.files, every.labels, every.classes)
        in_memory(again.subset(range(6, len(every))))
        in_memory(again.subset([5, 1]))
        in_memory(again)
        assert same(epoch(again.subset(range(6)), augmentation), alone)


def test_subsets_share_what_is_in_memory(tmp_path: Path) -> None:
    images = folder(tmp_path, UNEQUAL)
    part = kept(images.subset([5, 1]))
    whole, again = kept(images), kept(images.subset([4, 0, 1]))
    assert all(np.shares_memory(again[place], whole[index]) for place, index in enumerate([4, 0, 1]))
    np.testing.assert_array_equal(part[0], whole[5])


def test_one_large_image_leaves_its_split_where_it_is_and_no_other(tmp_path: Path) -> None:
    images = folder(tmp_path, (*UNEQUAL, (65, 3)))
    assert in_memory(images) is None
    before = reads(images)
    assert in_memory(images) is None
    assert reads(images) == before, "it is known by now"
    assert in_memory(images.subset(range(6))) is not None


def test_a_split_of_too_many_bytes_stays_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = folder(tmp_path, ((10, 10), (10, 10), (20, 20), (20, 20)))
    monkeypatch.setattr(memory, "MAX_BYTES", 3 * (100 + 100 + 400 + 400) - 1)
    assert in_memory(images) is None
    before = reads(images)
    assert in_memory(images) is None
    assert reads(images) == before, "it is known by now"
    assert in_memory(images.subset([0, 1, 2])) is not None
    assert in_memory(images.subset([1, 3])) is not None
    assert in_memory(images) is None, "all of them are in memory for other splits"
