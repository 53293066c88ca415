"""Pre-processing: what torchvision's usual transforms give, stored with the weights."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms import v2

from mnv3search.errors import DataError
from mnv3search.training.data.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize(("height", "width"), [(40, 61), (61, 40), (28, 28), (12, 20), (33, 32)])
@pytest.mark.parametrize("crop_share", [0.875, 1.0, 0.5])
def test_equals_torchvisions_transforms(height: int, width: int, crop_share: float, interpolation: str) -> None:
    image = noise(height, width)
    mode = v2.InterpolationMode(interpolation)
    expected = v2.Compose(
        [
            v2.ToImage(),
            v2.Resize(round(28 / crop_share), interpolation=mode, antialias=True),
            v2.CenterCrop(28),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )(image)
    if (height, width) == (28, 28):
        expected = v2.Normalize(IMAGENET_MEAN, IMAGENET_STD)(v2.ToDtype(torch.float32, scale=True)(v2.ToImage()(image)))
    got = Preprocessing(28, crop_share=crop_share, interpolation=interpolation).to_tensor(image[None])[0]
    torch.testing.assert_close(got, torch.as_tensor(expected), atol=1e-5, rtol=0)


def test_image_of_the_resolution_is_only_normalised() -> None:
    image = np.array([[[0, 51, 255]]], dtype=np.uint8)
    got = Preprocessing(1, mean=(0.5, 0.1, 0.0), std=(0.5, 0.2, 2.0)).to_tensor(image[None])[0]
    torch.testing.assert_close(got.flatten(), torch.tensor([-1.0, 0.5, 0.5]))


def test_batch_is_channels_last_and_equals_its_images() -> None:
    images = np.stack([noise(20, 30, seed) for seed in range(3)])
    preprocessing = Preprocessing(16)
    batch = preprocessing.to_tensor(images)
    assert batch.shape == (3, 3, 16, 16)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    for image, tensor in zip(images, batch, strict=True):
        assert torch.equal(tensor, preprocessing.to_tensor(image[None])[0])


def test_image_that_may_not_be_written_is_taken() -> None:
    image = noise(10, 10)
    image.setflags(write=False)
    assert Preprocessing(10).to_tensor(image[None])[0].shape == (3, 10, 10)
    assert Preprocessing(6).to_tensor(image[None])[0].shape == (3, 6, 6)


three = st.tuples(*[st.floats(0.01, 1)] * 3)


@given(
    resolution=st.integers(1, 512), mean=three, std=three, share=st.floats(0.1, 1),
    interpolation=st.sampled_from(["bilinear", "bicubic", "nearest"]),
)  # fmt: skip
def test_goes_through_json(
    resolution: int, mean: tuple[float, float, float], std: tuple[float, float, float], share: float, interpolation: str
) -> None:
    it = Preprocessing(resolution, mean, std, share, interpolation)
    assert Preprocessing.from_mapping(json.loads(json.dumps(it.to_mapping()))) == it


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({}, "must have a resolution"),
        ({"resolution": 8, "size": 3}, "must have a resolution and only"),
        ({"resolution": "8"}, "resolution is '8'; it must be a whole number"),
        ({"resolution": True}, "resolution is True; it must be a whole number"),
        ({"resolution": 0}, "resolution is 0; it must be a whole number from 1 to 4096"),
        ({"resolution": 8, "mean": [0.5, 0.5]}, "must be a list of three numbers"),
        ({"resolution": 8, "mean": [0.5, 0.5, float("nan")]}, "mean is nan; it must be a finite number"),
        ({"resolution": 8, "std": [0.5, 0.5, 0]}, "three finite figures above 0"),
        ({"resolution": 8, "crop_share": 1.5}, "crop_share 1.5 must be 0.1 to 1"),
        ({"resolution": 8, "crop_share": None}, "crop_share is None; it must be a finite number"),
        ({"resolution": 8, "interpolation": "area"}, "'area' must be one of bilinear, bicubic, nearest"),
    ],
)
def test_wrong_values_are_refused(mapping: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Preprocessing.from_mapping(mapping)
