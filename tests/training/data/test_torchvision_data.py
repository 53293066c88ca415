"""Data sets of torchvision: two kinds made here as their files would be; the real ones are for users to fetch."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from image_fakes import striped
from PIL import Image

from mnv3search.errors import DataError, UnknownNameError
from mnv3search.training.data.open_data import open_data, open_images


def fashion(root: Path) -> Path:
    raw = root / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for name, count in (("train", 40), ("t10k", 20)):
        pixels = np.arange(count, dtype=np.uint8).repeat(28 * 28)
        header = struct.pack(">BBBBIII", 0, 0, 8, 3, count, 28, 28)
        (raw / f"{name}-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
        labels = (np.arange(count) % 10).astype(np.uint8)
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">BBBBI", 0, 0, 8, 1, count) + labels.tobytes())
    return root


def pets(root: Path) -> Path:
    base, generator = root / "oxford-iiit-pet", np.random.default_rng(0)
    for folder in ("images", "annotations"):
        (base / folder).mkdir(parents=True)
    for split, numbers in (("trainval", range(5)), ("test", range(5, 8))):
        lines = []
        for label, breed in enumerate(("Bombay", "beagle")):
            for number in numbers:
                Image.fromarray(striped(label, 70, generator)).save(base / "images" / f"{breed}_{number}.jpg")
                lines.append(f"{breed}_{number} {label + 1} {label + 1} 1\n")
        (base / "annotations" / f"{split}.txt").write_text("".join(lines))
    return root


def test_data_set_in_arrays(tmp_path: Path) -> None:
    data = open_data(f"torchvision:FashionMNIST:{fashion(tmp_path)}", val_share=0.5)
    assert data.test is not None
    assert (len(data.train) + len(data.val), len(data.test)) == (40, 20)
    assert data.train.classes[:2] == ("T-shirt/top", "Trouser")
    for index, file in enumerate(data.val.files):
        number = int(file.partition("/")[2])
        np.testing.assert_array_equal(data.val.read(index), np.full((28, 28, 3), number))
        assert data.val.labels[index] == number % 10


def test_data_set_in_files(tmp_path: Path) -> None:
    root = pets(tmp_path)
    data = open_data(f"torchvision:OxfordIIITPet:{root}", val_share=0.4)
    assert data.train.classes == ("Bombay", "Beagle")
    assert len(data.train) + len(data.val) == 10
    test = open_images(f"torchvision:OxfordIIITPet:{root}:test", classes=("Beagle", "Bombay"))
    assert test.files[0] == "oxford-iiit-pet/images/Bombay_5.jpg"
    np.testing.assert_array_equal(test.labels, [1, 1, 1, 0, 0, 0])
    assert test.read(0).shape == (70, 70, 3)


def test_data_set_that_is_not_there_is_not_fetched_unasked(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot open CIFAR10 in .*add ,download to fetch it"):
        open_data(f"torchvision:CIFAR10:{tmp_path}")
    with pytest.raises(DataError, match=r"no such folder: .*; add ,download to fetch CIFAR10"):
        open_data(f"torchvision:CIFAR10:{tmp_path / 'none'}")
    assert list(tmp_path.iterdir()) == []


def test_unknown_data_set_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown data set of torchvision 'CIFAR11'; did you mean CIFAR10"):
        open_data("torchvision:CIFAR11:data")


@pytest.mark.parametrize("where", ["torchvision:CIFAR10", "torchvision:", "torchvision:CIFAR10:"])
def test_incomplete_name_says_what_is_missing(where: str) -> None:
    with pytest.raises(DataError, match="must be torchvision:NAME:FOLDER"):
        open_data(where)
