"""Random changes of images, each against its definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as transforms

from mnv3search.errors import TrainingError
from mnv3search.training.data.augmentation import (
    OPERATIONS,
    Augmentation,
    Operations,
    apply_operations,
    blank,
    crop_region,
    draw_boxes,
    draw_erasures,
    draw_mix,
    draw_operations,
    draw_regions,
    mix_images,
    mix_labels,
    pad_and_crop,
)


def noise(count: int, height: int = 12, width: int = 12, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


@given(pad=st.integers(1, 5), data=st.data())
def test_window_is_cut_out_of_the_image_padded_with_black(pad: int, data: st.DataObject) -> None:
    images = noise(3, 7, 9)
    corners = np.array([[data.draw(st.integers(0, 2 * pad)) for _ in range(2)] for _ in range(3)])
    cut = pad_and_crop(images, pad, corners)
    for image, out, (top, left) in zip(images, cut, corners, strict=True):
        padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)))
        np.testing.assert_array_equal(out, padded[top : top + 7, left : left + 9])


@given(
    seed=st.integers(0, 99), height=st.integers(1, 400), width=st.integers(1, 400), least=st.floats(0.05, 1)
)  # fmt: skip
def test_random_part_lies_in_the_image(seed: int, height: int, width: int, least: float) -> None:
    drawn = draw_regions(np.random.default_rng(seed), 1, least)[0]
    top, left, high, wide = crop_region(drawn, height, width)
    assert 0 <= top <= top + high <= height
    assert 0 <= left <= left + wide <= width
    assert min(high, wide) > 0


def test_random_parts_have_the_areas_and_aspects_asked_for() -> None:
    drawn = draw_regions(np.random.default_rng(0), 2000, 0.25)
    parts = np.array([crop_region(one, 1000, 1000) for one in drawn], dtype=float)
    areas, aspects = parts[:, 2] * parts[:, 3] / 1e6, parts[:, 3] / parts[:, 2]
    assert 0.249 < areas.min() < 0.27
    # Up to 0.75 every aspect fits into the image, so nothing is drawn again there: evenly spread.
    assert abs(np.median(areas[areas < 0.75]) - 0.5) < 0.02
    assert 0.749 < aspects.min() < 0.76
    assert 1.32 < aspects.max() < 1.335


@given(seed=st.integers(0, 200), mixup=st.sampled_from([0.0, 0.2]), cutmix=st.sampled_from([0.0, 1.0]))
def test_labels_have_the_shares_that_the_images_have(seed: int, mixup: float, cutmix: float) -> None:
    if mixup == cutmix == 0:
        return
    mix = draw_mix(np.random.default_rng(seed), 6, 8, mixup, cutmix)
    assert sorted(mix.partners) == list(range(6))
    assert 0 <= mix.kept <= 1
    # Image i is filled with 1 at channel i: its mean over the place is then the share of image i.
    images = torch.eye(6)[:, :, None, None].expand(6, 6, 8, 8).clone()
    shares = mix_images(images, mix).mean(dim=(2, 3))
    labels = mix_labels(torch.arange(6), 6, mix)
    torch.testing.assert_close(shares, labels)
    torch.testing.assert_close(labels.sum(dim=1), torch.ones(6))


def test_both_kinds_of_mixing_happen_where_both_are_asked_for() -> None:
    boxes = [draw_mix(np.random.default_rng(seed), 2, 8, 0.2, 1.0).box for seed in range(60)]
    assert 15 < sum(box is None for box in boxes) < 45


def test_cutout_blanks_a_square_of_each_image() -> None:
    boxes = draw_boxes(np.random.default_rng(0), 200, 16, 6)
    mask = blank(torch.ones(200, 3, 16, 16), boxes) == 0
    areas = mask[:, 0].sum(dim=(1, 2))
    assert torch.equal(mask[:, 0], mask[:, 2])
    assert int(areas.max()) == 36
    assert int(areas.min()) >= 9  # centred on a corner a quarter of it is left


def test_share_of_images_is_erased() -> None:
    boxes = draw_erasures(np.random.default_rng(0), 2000, 32, 0.25)
    areas = (blank(torch.ones(2000, 3, 32, 32), boxes) == 0)[:, 0].sum(dim=(1, 2)) / 1024
    assert abs(float((areas > 0).float().mean()) - 0.25) < 0.04
    assert float(areas.max()) < 0.36


def only(name: str, sign: int, magnitude: float, count: int) -> Operations:
    chosen = np.full((count, 1), OPERATIONS.index(name))
    return Operations(chosen, np.full((count, 1), sign), magnitude, None)


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_is_torchvisions(name: str, sign: int) -> None:
    """RandAugment(num_ops=1) of torchvision with its draw fixed to one operation and sign."""
    from torchvision.transforms.v2 import InterpolationMode, RandAugment

    magnitude, images = 9, noise(2, 16, 16)
    policy = RandAugment(num_ops=1, magnitude=magnitude, num_magnitude_bins=31)
    torchvisions_name = "".join({"color": "Color"}.get(part, part.capitalize()) for part in name.split("_"))
    torchvisions_name = {"Autocontrast": "AutoContrast"}.get(torchvisions_name, torchvisions_name)
    spread, signed = policy._AUGMENTATION_SPACE[torchvisions_name]
    strengths = spread(31, 16, 16)
    strength = 0.0 if strengths is None else float(strengths[magnitude])
    expected = policy._apply_image_or_video_transform(
        torch.from_numpy(images).permute(0, 3, 1, 2), torchvisions_name, sign * strength if signed else strength,
        interpolation=InterpolationMode.NEAREST, fill={},
    )  # fmt: skip
    got = apply_operations(images, only(name, sign, magnitude, 2))
    difference = got.astype(int) - expected.permute(0, 2, 3, 1).numpy().astype(int)
    assert np.abs(difference).max() <= 1  # torchvision has its factors in float32
    assert np.count_nonzero(difference) < difference.size / 100


def test_each_image_gets_its_own_operations() -> None:
    images = noise(12)
    operations = draw_operations(np.random.default_rng(3), 12, Augmentation(randaugment=9, jitter=0.3))
    assert operations is not None
    together = apply_operations(images, operations)
    for number in range(12):
        part = slice(number, number + 1)
        np.testing.assert_array_equal(apply_operations(images[part], operations.share(part))[0], together[number])
    assert sum(np.array_equal(a, b) for a, b in zip(images, together, strict=True)) < 3


def test_jitter_is_torchvisions() -> None:
    images = noise(1)
    factors = np.array([[0.7, 1.3, 0.6]])
    got = apply_operations(images, Operations(np.empty((1, 0), int), np.empty((1, 0), int), 0, factors))
    expected = torch.from_numpy(images).permute(0, 3, 1, 2)
    for change, factor in zip(
        (transforms.adjust_brightness, transforms.adjust_contrast, transforms.adjust_saturation),
        factors[0],
        strict=True,
    ):
        expected = change(expected, float(factor))
    difference = got.astype(int) - expected.permute(0, 2, 3, 1).numpy().astype(int)
    assert np.abs(difference).max() <= 2  # torchvision rounds to whole pixels after each step


@given(
    crop=st.sampled_from(["none", "pad", "random_resized"]), flip=st.booleans(), mixup=st.floats(0, 10),
    randaugment=st.none() | st.floats(0, 30), cutout=st.integers(0, 64),
)  # fmt: skip
def test_augmentation_goes_through_a_mapping(
    crop: str, flip: bool, mixup: float, randaugment: float | None, cutout: int
) -> None:
    it = Augmentation(crop=crop, flip=flip, mixup=mixup, randaugment=randaugment, cutout=cutout)
    assert Augmentation.from_mapping(it.to_mapping()) == it


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"crop": "middle"}, "'middle' must be one of none, pad, random_resized"),
        ({"flipp": True}, "augmentation has no 'flipp'; it has crop, "),
        ({"flip": 1}, "flip 1 must be true or false"),
        ({"pad": -1}, "pad -1 must be a whole number of 0 to 64"),
        ({"pad": 1.5}, "pad 1.5 must be a whole number"),
        ({"randaugment": 31}, "randaugment 31 must be a number of 0 to 30"),
        ({"mixup": "yes"}, "mixup 'yes' must be a number"),
        ({"cutmix": float("nan")}, "cutmix nan must be a number of 0 to 10"),
        ({"erase": True}, "erase True must be a number"),
        ({"least_area": 0}, "least_area 0 must be a number of 0.01 to 1"),
    ],
)
def test_wrong_augmentations_are_refused(mapping: dict[str, object], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        Augmentation.from_mapping(mapping)
