"""Batches: every image once an epoch, and each batch the same whenever and wherever it is asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from image_fakes import make_image_folder, zip_folder
from numpy.typing import NDArray

from mnv3search.errors import DataError
from mnv3search.training.data.augmentation import Augmentation
from mnv3search.training.data.batches import Batch, Batches
from mnv3search.training.data.images import ArraySource, LabelledImages
from mnv3search.training.data.open_data import open_images
from mnv3search.training.data.preprocessing import Preprocessing

SIDE = 8
RAW = Preprocessing(SIDE, mean=(0, 0, 0), std=(1, 1, 1))
EVERYTHING = Augmentation(
    crop="pad", pad=2, flip=True, randaugment=9, jitter=0.2, cutout=3, erase=0.5, mixup=0.2, cutmix=1
)
PARTS = Augmentation(crop="random_resized", flip=True)


def numbered(count: int, side: int = SIDE) -> LabelledImages:
    """Images of one grey each, 0 to ``count - 1``, of three classes."""
    pixels = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, side, side, 3))
    source = ArraySource("numbers", {"all": pixels})
    return LabelledImages(source, source.files("all"), np.arange(count) % 3, ("a", "b", "c"))


def textured(count: int, side: int = SIDE) -> LabelledImages:
    pixels = np.random.default_rng(1).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    source = ArraySource("noise", {"all": pixels})
    return LabelledImages(source, source.files("all"), np.arange(count) % 3, ("a", "b", "c"))


def numbers_in(batch: Batch) -> NDArray[np.int64]:
    return (batch.images[:, 0, 0, 0] * 255).round().to(torch.int64).numpy()


def same(one: Batch, other: Batch) -> bool:
    return torch.equal(one.images, other.images) and torch.equal(one.labels, other.labels)


@given(
    count=st.integers(1, 60), batch_size=st.integers(1, 70), shuffle=st.booleans(), seed=st.integers(0, 9),
    epoch=st.integers(0, 5),
)  # fmt: skip
def test_every_image_is_seen_once_an_epoch(count: int, batch_size: int, shuffle: bool, seed: int, epoch: int) -> None:
    batches = Batches(numbered(count), RAW, batch_size, shuffle=shuffle, seed=seed)
    got = list(batches.epoch(epoch))
    assert len(got) == len(batches)
    assert all(len(batch) == batch_size for batch in got[:-1])
    numbers = np.concatenate([numbers_in(batch) for batch in got])
    assert sorted(numbers) == list(range(count))
    np.testing.assert_array_equal(np.concatenate([batch.labels.numpy() for batch in got]), numbers % 3)
    if not shuffle:
        np.testing.assert_array_equal(numbers, np.arange(count))


@given(count=st.integers(5, 40), batch_size=st.integers(1, 5))
def test_last_batch_is_dropped_where_it_is_not_full(count: int, batch_size: int) -> None:
    batches = Batches(numbered(count), RAW, batch_size, shuffle=True, drop_last=True)
    sizes = [len(batch) for batch in batches.epoch(0)]
    assert sizes == [batch_size] * (count // batch_size) == [batch_size] * len(batches)


@pytest.mark.parametrize("augmentation", [None, EVERYTHING, PARTS])
@pytest.mark.parametrize("side", [SIDE, 12, 100])
def test_epoch_continues_as_if_it_had_not_stopped(side: int, augmentation: Augmentation | None) -> None:
    def made() -> Batches:
        return Batches(textured(23, side), RAW, 4, shuffle=True, seed=5, augmentation=augmentation)

    whole = list(made().epoch(3))
    for start in (0, 2, 5, 6):
        rest = list(made().epoch(3, start))
        assert len(rest) == len(whole) - start
        assert all(same(one, other) for one, other in zip(rest, whole[start:], strict=True))


def test_epochs_and_seeds_differ() -> None:
    images = textured(16)
    first, second = (next(iter(Batches(images, RAW, 16, shuffle=True).epoch(epoch))) for epoch in (0, 1))
    other = next(iter(Batches(images, RAW, 16, shuffle=True, seed=1).epoch(0)))
    assert not same(first, second)
    assert not same(first, other)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("augmentation", [None, EVERYTHING, PARTS])
def test_threads_change_nothing(tmp_path: Path, augmentation: Augmentation | None, suffix: str) -> None:
    folder = make_image_folder(tmp_path / "a", 2, 7, side=100, split=(), suffix=suffix)
    images = open_images(str(zip_folder(folder, tmp_path / "a.zip")))
    alone, threads = (
        list(Batches(images, RAW, 4, augmentation=augmentation, shuffle=True, workers=workers).epoch(1))
        for workers in (0, 3)
    )
    assert all(same(one, other) for one, other in zip(alone, threads, strict=True))


def test_stopping_in_the_middle_of_an_epoch_ends_the_threads(tmp_path: Path) -> None:
    images = open_images(str(make_image_folder(tmp_path, 2, 20, side=70, split=())))
    epoch = Batches(images, RAW, 2, workers=2).epoch(0)
    next(epoch)
    epoch.close()  # type: ignore[attr-defined]
    import threading

    assert not [thread for thread in threading.enumerate() if thread.name.startswith("images")]


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    count=st.integers(1, 40), world=st.integers(1, 5), each=st.integers(1, 6), shuffle=st.booleans(),
    augmented=st.booleans(),
)  # fmt: skip
def test_processes_share_the_batches_of_one(count: int, world: int, each: int, shuffle: bool, augmented: bool) -> None:
    augmentation = Augmentation(crop="pad", pad=2, flip=True, cutout=3) if augmented else None
    images = textured(count)

    def made(rank: int, world: int) -> list[Batch]:
        batches = Batches(images, RAW, each * 60, rank=rank, world=world, shuffle=shuffle, augmentation=augmentation)
        return list(batches.epoch(2))

    alone = made(0, 1)
    shares = [made(rank, world) for rank in range(world)]
    for step, whole in enumerate(alone):
        assert torch.equal(torch.cat([share[step].images for share in shares]), whole.images)
        assert torch.equal(torch.cat([share[step].labels for share in shares]), whole.labels)


def test_mixing_within_a_process_is_repeatable() -> None:
    mixed = Augmentation(mixup=0.4)
    batches = [Batches(textured(12), RAW, 6, rank=1, world=2, augmentation=mixed) for _ in range(2)]
    one, other = (next(iter(each.epoch(0))) for each in batches)
    assert same(one, other)
    assert one.labels.shape == (3, 3)
    torch.testing.assert_close(one.labels.sum(dim=1), torch.ones(3))


def test_two_epochs_in_a_row_show_both_sides() -> None:
    images = textured(30)
    batches = Batches(images, RAW, 30, augmentation=Augmentation(flip=True))
    first, second = (next(iter(batches.epoch(epoch))).images for epoch in (0, 1))
    plain = next(iter(Batches(images, RAW, 30).epoch(0))).images
    assert torch.equal(first, second.flip(3))
    turned = sum(torch.equal(one, other.flip(2)) for one, other in zip(first, plain, strict=True))
    assert 5 < turned < 25


def test_making_batches_does_not_change_the_images_in_memory() -> None:
    images = textured(9)
    before = [images.read(index).copy() for index in range(9)]
    for _ in Batches(images, RAW, 4, augmentation=EVERYTHING, shuffle=True).epoch(0):
        pass
    plain = next(iter(Batches(images, RAW, 9).epoch(0))).images
    expected = torch.stack([RAW.to_tensor(image[None])[0] for image in before])
    assert torch.equal(plain, expected)


@pytest.mark.parametrize("side", [SIDE, 20, 90])
def test_without_augmentation_images_are_those_to_judge_by(side: int) -> None:
    images, preprocessing = textured(5, side), Preprocessing(SIDE)
    got = torch.cat([batch.images for batch in Batches(images, preprocessing, 2).epoch(0)])
    expected = torch.stack([preprocessing.to_tensor(images.read(index)[None])[0] for index in range(5)])
    assert torch.equal(got, expected)


@pytest.mark.parametrize("augmentation", [None, EVERYTHING, PARTS])
@pytest.mark.parametrize("side", [SIDE, 5, 30, 80])
def test_batches_have_the_form_that_networks_take(side: int, augmentation: Augmentation | None) -> None:
    for batch in Batches(textured(7, side), RAW, 3, augmentation=augmentation).epoch(0):
        assert batch.images.shape[1:] == (3, SIDE, SIDE)
        assert batch.images.dtype == torch.float32
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        mixed = augmentation is not None and augmentation.mixes
        assert batch.labels.dtype == (torch.float32 if mixed else torch.int64)


def test_random_state_of_others_is_left_alone() -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    expected = torch.get_rng_state(), np.random.random(4)
    torch.manual_seed(0)
    np.random.seed(0)
    for _ in Batches(textured(8), RAW, 4, augmentation=EVERYTHING, shuffle=True).epoch(0):
        pass
    assert torch.equal(expected[0], torch.get_rng_state())
    np.testing.assert_array_equal(expected[1], np.random.random(4))


@pytest.mark.parametrize("workers", [0, 2])
def test_damaged_image_stops_the_epoch_with_its_name(tmp_path: Path, workers: int) -> None:
    make_image_folder(tmp_path, 2, 4, side=100, split=())
    path = tmp_path / "class_1" / "0002.png"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DataError, match=r"class_1/0002\.png cannot be decoded"):
        list(Batches(open_images(str(tmp_path)), RAW, 3, workers=workers).epoch(0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batches of 0 cannot be made of 5 images; choose 1 to 5"),
        ({"batch_size": 6, "drop_last": True}, "batches of 6 cannot be made of 5 images"),
        ({"batch_size": 4, "world": 3}, "batches of 4 cannot be cut for process 0 of 3: use a multiple"),
        ({"batch_size": 4, "world": 2, "rank": 2}, "for process 2 of 2"),
        ({"batch_size": 4, "workers": -1}, r"workers \(-1\)"),
    ],
)
def test_wrong_sizes_are_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Batches(numbered(5), RAW, **options)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="gives no images"):
        Batches(numbered(5).subset([]), RAW, 1)
    with pytest.raises(DataError, match="epoch -1"):
        next(Batches(numbered(5), RAW, 1).epoch(-1))
