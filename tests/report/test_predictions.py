"""The picture of predictions: each image with its bars, the same bytes for the same images, whatever the names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mnv3search.errors import DataError
from mnv3search.report import predictions
from mnv3search.report.predictions import PredictedImage, draw_predictions


def image(file: str = "a.png", share: float = 0.75, side: int = 8) -> PredictedImage:
    pixels = np.full((side, side, 3), (250, 20, 230), dtype=np.uint8)
    return PredictedImage(file, pixels, (("cat", share), ("dog", 1 - share)))


def counts(png: Path, colour: tuple[int, int, int]) -> int:
    pixels = np.asarray(Image.open(png).convert("RGB")).astype(int)
    return int((np.abs(pixels - colour).max(axis=2) <= 2).sum())


def test_every_image_is_there_and_bars_grow_with_the_probability(tmp_path: Path) -> None:
    best, pink = (0xD1, 0x44, 0x0C), (250, 20, 230)
    draw_predictions([image(share=0.9)], tmp_path / "sure.png")
    draw_predictions([image(share=0.6)], tmp_path / "unsure.png")
    assert counts(tmp_path / "sure.png", best) / counts(tmp_path / "unsure.png", best) == pytest.approx(1.5, abs=0.05)
    draw_predictions([image(), image(), image(), image()], tmp_path / "four.png")
    assert counts(tmp_path / "four.png", pink) == pytest.approx(4 * counts(tmp_path / "sure.png", pink), rel=0.03)


def test_the_same_images_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        draw_predictions([image("$x^2$ <b>.png"), image("long" * 40)], tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_more_than_can_be_read_are_left_out_and_none_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert predictions.MAX_DRAWN == 24
    monkeypatch.setattr(predictions, "MAX_DRAWN", 4)
    draw_predictions([image()] * 9, tmp_path / "many.png")
    draw_predictions([image()] * 4, tmp_path / "full.png")
    pink = (250, 20, 230)
    assert counts(tmp_path / "many.png", pink) == pytest.approx(counts(tmp_path / "full.png", pink), rel=0.01)
    with pytest.raises(DataError, match="nothing to draw"):
        draw_predictions([], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
