"""The scan: everything that is odd about images is found, whether they are decoded or judged by their ends."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from image_fakes import make_image_folder, zip_folder
from PIL import Image

from mnv3search.errors import DataError
from mnv3search.training.data.images import ArraySource, FolderSource, LabelledImages
from mnv3search.training.data.memory import in_memory
from mnv3search.training.data.open_data import open_data, open_images
from mnv3search.training.data.scan import check_splits, scan_images
from mnv3search.training.data.splits import held_out, stable_subset


def opened(folder: Path) -> dict[str, LabelledImages]:
    data = open_data(str(folder), scan=False)
    return {"train": data.train, "val": data.val}


def test_good_images_have_a_short_report(tmp_path: Path) -> None:
    report = scan_images(opened(make_image_folder(tmp_path, 2, 3, side=16)))
    report.raise_if_bad()
    assert report.lines() == ["12 images, sides of 16 to 16 pixels"]


@pytest.mark.parametrize("thorough", [True, False, None])
@pytest.mark.parametrize("side", [16, 150])
def test_faults_are_found(tmp_path: Path, side: int, thorough: bool | None) -> None:
    make_image_folder(tmp_path, 2, 6, side=side, suffix=".jpg")
    faults = {}
    for number in range(3):
        path = tmp_path / "train" / "class_0" / f"000{number}.jpg"
        path.write_bytes((b"", path.read_bytes()[:-20], b"GIF, they said")[number])
        faults[path.relative_to(tmp_path).as_posix()] = ("is empty", "cannot be decoded", "no image")[number]
    report = scan_images(opened(tmp_path), thorough=thorough)
    assert set(report.unreadable) == set(faults)
    for file, reason in faults.items():
        assert reason in report.unreadable[file]
    with pytest.raises(DataError, match="3 images of 24 cannot be used"):
        report.raise_if_bad()


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("thorough", [True, False])
def test_conversions_are_counted(tmp_path: Path, thorough: bool, zipped: bool) -> None:
    make_image_folder(tmp_path / "a", 2, 3, side=100, split=(), suffix=".jpg")
    image = Image.open(tmp_path / "a" / "class_0" / "0000.jpg")
    turned = Image.Exif()
    turned[0x0112] = 6
    image.convert("L").save(tmp_path / "a" / "class_0" / "grey.jpg")
    image.convert("CMYK").save(tmp_path / "a" / "class_0" / "cmyk.jpg")
    image.save(tmp_path / "a" / "class_0" / "turned.jpg", exif=turned)
    image.convert("RGBA").save(tmp_path / "a" / "class_1" / "alpha.png")
    where = str(zip_folder(tmp_path / "a", tmp_path / "a.zip")) if zipped else str(tmp_path / "a")
    report = scan_images(open_images(where), thorough=thorough)
    assert report.converted == {"L": 1, "CMYK": 1, "RGBA": 1}
    assert report.turned == ("class_0/turned.jpg",)
    assert report.lines()[1:] == ["converted to RGB: 1 CMYK, 1 grey, 1 alpha", "turned as EXIF says: 1"]


def test_copies_are_found_and_told_where_they_mislead(tmp_path: Path) -> None:
    make_image_folder(tmp_path, 2, 3)
    train, val = tmp_path / "train", tmp_path / "val"
    (train / "class_0" / "again.png").write_bytes((train / "class_0" / "0000.png").read_bytes())
    (val / "class_0" / "seen.png").write_bytes((train / "class_0" / "0001.png").read_bytes())
    (train / "class_1" / "which.png").write_bytes((train / "class_0" / "0002.png").read_bytes())
    report = scan_images(opened(tmp_path))
    assert {frozenset(group) for group in report.copies} == {
        frozenset({"train/class_0/0000.png", "train/class_0/again.png"}),
        frozenset({"train/class_0/0001.png", "val/class_0/seen.png"}),
        frozenset({"train/class_0/0002.png", "train/class_1/which.png"}),
    }
    assert (report.copies_between_splits, report.copies_between_classes) == (1, 1)
    said = report.lines()[-1]
    assert "the same image more than once: 3 (" in said
    assert "train/class_0/0001.png = val/class_0/seen.png" in said
    assert "1 of them in more than one split" in said


def test_empty_class_is_reported(tmp_path: Path) -> None:
    images = open_images(str(make_image_folder(tmp_path, 2, 2, split=())))
    report = scan_images(images.subset([0, 1, 2]))
    assert report.single_image_classes == (("", "class_1"),)
    report = scan_images(images.subset([0, 1]))
    assert report.empty_classes == (("", "class_1"),)
    with pytest.raises(DataError, match="no images of 'class_1'"):
        report.raise_if_bad()


def test_files_that_are_left_out_are_reported(tmp_path: Path) -> None:
    report = scan_images(opened(make_image_folder(tmp_path, 2, 2)), ignored=("x.txt",))
    assert report.lines()[-1] == "left out, as no images of a class: x.txt"


class CountingSource(FolderSource):
    """A folder that counts how often its images are read."""

    reads = 0

    def encoded(self, file: str) -> bytes:
        self.reads += 1
        return super().encoded(file)


def test_what_a_scan_decodes_is_not_decoded_again(tmp_path: Path) -> None:
    images = open_images(str(make_image_folder(tmp_path, 2, 4, split=())))
    source = CountingSource(tmp_path)
    images = LabelledImages(source, images.files, images.labels, images.classes)
    scan_images(images, thorough=True)
    after_scan = source.reads
    kept = in_memory(images)
    assert kept is not None
    assert source.reads == after_scan
    for index in range(len(images)):
        np.testing.assert_array_equal(kept[index], images.read(index))


def test_ways_over_many_classes_are_not_quadratic() -> None:
    """They take minutes."""
    count = 40_000
    names = tuple(f"c{i:06d}" for i in range(count))
    files = tuple(f"{name}/{place}" for name in names for place in "ab")
    images = LabelledImages(ArraySource("many", {}), files, np.repeat(np.arange(count), 2), names)
    check_splits({"train": images, "val": images})
    rest, held = held_out(images, 0.1)
    assert len(rest) == len(held) == count
    assert len(stable_subset(images, count + 5)) == count + 5
