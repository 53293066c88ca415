"""Data sets by the name that a user gives."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from image_fakes import make_image_folder, zip_folder

from mnv3search.errors import DataError
from mnv3search.training.data.open_data import open_data, open_images


def names(images: object) -> list[str]:
    return [Path(file).name for file in images.files]  # type: ignore[attr-defined]


def test_folders_of_splits_are_used_as_they_are(tmp_path: Path) -> None:
    data = open_data(str(make_image_folder(tmp_path, ["rose", "daisy"], 4, split=("train", "val", "test"))))
    assert data.train.classes == data.val.classes == ("daisy", "rose")
    assert data.test is not None
    assert [len(part) for part in (data.train, data.val, data.test)] == [8, 8, 8]
    assert data.train.files[0] == "train/daisy/0000.png"
    np.testing.assert_array_equal(data.train.labels, [0, 0, 0, 0, 1, 1, 1, 1])


@pytest.mark.parametrize("split", [(), ("train",), ("train", "test")])
def test_val_is_held_out_of_train_where_there_is_none(tmp_path: Path, split: tuple[str, ...]) -> None:
    data = open_data(str(make_image_folder(tmp_path, 2, 10, split=split)), val_share=0.3)
    assert (data.test is not None) is ("test" in split)
    assert not set(data.train.files) & set(data.val.files)
    assert len(data.train) + len(data.val) == 20
    assert set(data.val.labels) == {0, 1}


def test_an_empty_text_is_not_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(make_image_folder(tmp_path, 2, 4))
    assert len(open_data(".").train) == 8
    for opened in (open_data, open_images):
        with pytest.raises(DataError, match=r"^the path of the images is empty; give a folder, a zip archive or"):
            opened("")
    with pytest.raises(DataError, match=r"^the path of the images is empty"):
        open_images(":val")


@pytest.mark.parametrize("name", ["valid", "validation", "Val", "dev"])
def test_usual_names_of_val_are_known(tmp_path: Path, name: str) -> None:
    data = open_data(str(make_image_folder(tmp_path, 2, 3, split=("train", name))))
    assert {file.split("/")[0] for file in data.val.files} == {name}


def test_same_images_are_held_out_of_a_folder_and_of_its_archive(tmp_path: Path) -> None:
    folder = make_image_folder(tmp_path / "a", 2, 20, split=())
    archive = zip_folder(folder, tmp_path / "a.zip", top="deep/down")
    plain, packed = open_data(str(folder)), open_data(str(archive))
    assert packed.val.files == tuple(f"deep/down/{file}" for file in plain.val.files)


def test_images_below_a_class_belong_to_it(tmp_path: Path) -> None:
    make_image_folder(tmp_path, 2, 2)
    deep = tmp_path / "train" / "class_0" / "2019" / "may"
    deep.mkdir(parents=True)
    shutil.copy(tmp_path / "train" / "class_0" / "0000.png", deep / "more.png")
    data = open_data(str(tmp_path))
    assert data.train.labels[data.train.files.index("train/class_0/2019/may/more.png")] == 0


def test_links_that_go_in_circles_end(tmp_path: Path) -> None:
    make_image_folder(tmp_path, 2, 2)
    (tmp_path / "train" / "class_0" / "again").symlink_to(tmp_path / "train")
    assert len(open_data(str(tmp_path)).train) == 4


def test_other_files_are_left_out_and_reported(tmp_path: Path) -> None:
    make_image_folder(tmp_path, 2, 2)
    for name in (
        "README.txt",
        "train/class_0/Thumbs.db",
        "train/class_0/.hidden.png",
        "train/stray.png",
        "extra/x.png",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    data = open_data(str(tmp_path))
    assert data.report is not None
    assert set(data.report.ignored) == {
        "README.txt", "train/class_0/Thumbs.db", "train/class_0/.hidden.png", "train/stray.png", "extra/x.png"
    }  # fmt: skip
    assert len(data.train) == 4


def test_folders_that_macs_add_to_archives_are_no_classes(tmp_path: Path) -> None:
    make_image_folder(tmp_path / "a" / "flowers", 2, 2, split=())
    make_image_folder(tmp_path / "a" / "__MACOSX" / "flowers", 2, 1, split=())
    data = open_data(str(zip_folder(tmp_path / "a", tmp_path / "a.zip")))
    assert data.train.classes == ("class_0", "class_1")


@pytest.mark.parametrize(
    ("train", "val", "message"),
    [
        (["a", "b"], ["a"], r"val lacks 'b'; all splits need the classes of train"),
        (["a", "b"], ["a", "b", "c"], r"val has 'c' besides"),
        (["a", "b"], ["a", "B"], r"val lacks 'b' and has 'B' besides"),
        (["a"], ["a"], "one class, 'a'; telling classes apart needs two"),
    ],
)
def test_splits_need_the_same_classes(tmp_path: Path, train: list[str], val: list[str], message: str) -> None:
    make_image_folder(tmp_path, train, 2, split=("train",))
    make_image_folder(tmp_path, val, 2, split=("val",))
    with pytest.raises(DataError, match=message):
        open_data(str(tmp_path))


def test_class_without_images_is_refused(tmp_path: Path) -> None:
    make_image_folder(tmp_path, ["a", "b", "c"], 2)
    for image in (tmp_path / "val" / "b").iterdir():
        image.unlink()
    with pytest.raises(DataError, match="no images in val of 'b'; add some"):
        open_data(str(tmp_path))
    with pytest.raises(DataError, match="no images in val of 'b'; add some"):
        open_data(str(zip_folder(tmp_path, tmp_path / "a.zip")))


def test_class_with_one_image_cannot_give_a_val(tmp_path: Path) -> None:
    make_image_folder(tmp_path, ["a"], 3, split=())
    make_image_folder(tmp_path, ["b"], 1, split=())
    with pytest.raises(DataError, match=r"class 'b' has one image \(b/0000\.png\)"):
        open_data(str(tmp_path))


def test_class_with_one_image_is_reported_where_there_is_a_val(tmp_path: Path) -> None:
    make_image_folder(tmp_path, ["a", "b"], 3, split=("val",))
    make_image_folder(tmp_path, ["a"], 3, split=("train",))
    make_image_folder(tmp_path, ["b"], 1, split=("train",))
    report = open_data(str(tmp_path)).report
    assert report is not None
    assert report.single_image_classes == (("train", "b"),)


def test_two_folders_for_a_split_are_refused(tmp_path: Path) -> None:
    make_image_folder(tmp_path, 2, 2, split=("train", "val", "valid"))
    with pytest.raises(DataError, match=r"two folders for val: val.* and val"):
        open_data(str(tmp_path))


def test_val_alone_is_nothing_to_train_on(tmp_path: Path) -> None:
    make_image_folder(tmp_path, 2, 2, split=("val",))
    with pytest.raises(DataError, match="no images to train on: it holds val; add a folder train/"):
        open_data(str(tmp_path))


def test_images_in_no_class_are_refused(tmp_path: Path) -> None:
    make_image_folder(tmp_path / "a", ["one"], 2, split=())
    with pytest.raises(DataError, match="holds no folder of images; put the images of each class into a folder"):
        open_data(str(tmp_path / "a" / "one"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no folder of images"):
        open_data(str(tmp_path / "empty"))


@pytest.mark.parametrize("where", ["nowhere", "nowhere.zip", "nowhere/val:test"])
def test_what_is_not_there_is_named(where: str) -> None:
    for opened in (open_data, open_images):
        with pytest.raises(DataError, match="no such folder or zip archive: nowhere"):
            opened(where)


def test_images_that_cannot_be_decoded_stop_with_their_names(tmp_path: Path) -> None:
    make_image_folder(tmp_path, 2, 3)
    (tmp_path / "train" / "class_0" / "0001.png").write_bytes(b"")
    path = tmp_path / "val" / "class_1" / "0002.png"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=r"2 images of 12 cannot be used: .*0001\.png is empty.*0002\.png cannot be"):
        open_data(str(tmp_path))
    assert len(open_data(str(tmp_path), scan=False).train) == 6


@pytest.mark.parametrize(("bad", "listed"), [(3, 0), (4, 4)])
def test_bad_images_are_listed_only_where_the_error_does_not_name_them_all(
    tmp_path: Path, bad: int, listed: int
) -> None:
    make_image_folder(tmp_path, 2, 5)
    for number in range(bad):
        (tmp_path / "train" / "class_0" / f"000{number}.png").write_bytes(b"")
    told: list[str] = []
    with pytest.raises(DataError) as stopped:
        open_data(str(tmp_path), on_fault=told.append)
    assert len(told) == listed
    named = [number for number in range(bad) if f"000{number}.png is empty" in str(stopped.value)]
    assert named == ([*range(bad)] if not listed else [0])
    assert str(stopped.value).endswith("replace or remove it" if not listed else "; and 3 more")


def test_one_split_is_opened_to_judge_by(tmp_path: Path) -> None:
    folder = make_image_folder(tmp_path / "a", ["b", "a"], 2, split=("train", "test"))
    archive = zip_folder(folder, tmp_path / "a.zip")
    for where in (f"{folder}/test", f"{folder}:test", f"{archive}:test"):
        images = open_images(where)
        assert images.classes == ("a", "b")
        assert names(images) == ["0000.png", "0001.png"] * 2
    with pytest.raises(DataError, match=r"several splits; name one: .*:train or .*:test"):
        open_images(str(folder))
    with pytest.raises(DataError, match="has no split 'test'; it holds no splits"):
        open_images(f"{folder}/train:test")


@pytest.mark.parametrize("split", [(), ("train", "test")])
def test_val_of_data_without_one_is_what_a_training_holds_out(tmp_path: Path, split: tuple[str, ...]) -> None:
    folder = make_image_folder(tmp_path / "a", 2, 30, split=split)
    held = open_images(f"{folder}:val")
    assert held.files == open_data(str(folder)).val.files
    assert 2 <= len(held) < 30


def test_labels_follow_the_classes_of_a_network(tmp_path: Path) -> None:
    folder = make_image_folder(tmp_path / "val", ["a", "b"], 1, split=())
    images = open_images(str(folder), classes=("b", "c", "a"))
    assert images.classes == ("b", "c", "a")
    np.testing.assert_array_equal(images.labels, [2, 0])
    with pytest.raises(DataError, match="has class 'b', unknown to the network"):
        open_images(str(folder), classes=("a", "c"))


def test_progress_reaches_the_number_of_images(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    open_data(str(make_image_folder(tmp_path, 2, 3)), progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (12, 12)


def test_one_name_in_two_forms_is_one_class(tmp_path: Path) -> None:
    """macOS decomposes é; an archive made there and a folder made here mean the same."""
    for split, name in (("train", "caf\u00e9"), ("val", "cafe\u0301"), ("train", "thé"), ("val", "thé")):
        make_image_folder(tmp_path / split, classes=1, per_class=2, split=()).joinpath("class_0").rename(
            tmp_path / split / name
        )
    data = open_data(str(tmp_path))
    assert data.train.classes == data.val.classes == ("caf\u00e9", "th\u00e9")
    assert data.val.read(0).shape == data.train.read(0).shape
    judged = open_images(f"{tmp_path}:val", ("the\u0301", "cafe\u0301"))
    assert judged.labels.tolist() == [1, 1, 0, 0]


def test_names_that_are_not_utf_8_are_refused_before_any_work(tmp_path: Path) -> None:
    make_image_folder(tmp_path / "a", classes=2, per_class=1, split=("train", "val"))
    os.rename(tmp_path / "a/train/class_1", os.fsencode(tmp_path) + b"/a/train/caf\xe9")
    with pytest.raises(DataError, match=r"a: the name caf\\xe9 is not UTF-8.*rename that folder"):
        open_data(str(tmp_path / "a"))
    os.rename(os.fsencode(tmp_path) + b"/a", os.fsencode(tmp_path) + b"/b\xff")
    with pytest.raises(DataError, match=r"b\\xff is not UTF-8"):
        open_data(os.fsdecode(os.fsencode(tmp_path) + b"/b\xff"))


def test_links_are_followed_wherever_they_lead_and_not_in_circles(tmp_path: Path) -> None:
    make_image_folder(tmp_path / "stored", classes=2, per_class=2, split=())
    data = tmp_path / "data"
    data.mkdir()
    for split in ("train", "val"):
        (data / split).symlink_to("../stored")
    (tmp_path / "stored" / "circle").symlink_to("..")
    found = open_data(str(data))
    assert found.train.classes == found.val.classes == ("class_0", "class_1")
    assert len(found.train) == len(found.val) == 4
    (data / "val").unlink()
    (data / "val").mkdir()
    for name in ("class_0", "class_1"):
        (data / "val" / name).symlink_to(f"../../stored/{name}")
    assert len(open_data(str(data)).val) == 4
