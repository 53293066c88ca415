"""Images as a viewer shows them, whatever they are stored as; and what is refused."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from mnv3search.errors import DataError
from mnv3search.training.data.decoding import EncodedImage, decode, plain_jpeg_size


def smooth(height: int, width: int, seed: int = 0) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def stored(image: Image.Image, form: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def as_pillow_reads(data: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"subsampling": 0}, {"quality": 30}, {"optimize": True}]
)
@pytest.mark.parametrize("size", [(1, 1), (33, 17), (120, 75)])
def test_plain_jpeg_has_the_pixels_that_pillow_reads(size: tuple[int, int], options: dict[str, object]) -> None:
    data = stored(smooth(*size), "JPEG", **options)
    assert plain_jpeg_size(data) == (size[1], size[0])
    np.testing.assert_array_equal(decode(data, "x.jpg"), as_pillow_reads(data))


@pytest.mark.parametrize("form", ["PNG", "BMP", "WEBP", "TIFF", "PPM"])
def test_other_formats_have_the_pixels_that_pillow_reads(form: str) -> None:
    data = stored(smooth(9, 14), form)
    np.testing.assert_array_equal(decode(data, "x"), as_pillow_reads(data))


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "YCbCr"])
def test_other_modes_become_rgb(mode: str) -> None:
    data = stored(smooth(10, 12).convert(mode), "JPEG" if mode in {"CMYK", "YCbCr"} else "PNG")
    image = EncodedImage(data, "x")
    assert image.mode == ("RGB" if mode == "YCbCr" else mode)  # a JPEG is stored as YCbCr anyway
    np.testing.assert_array_equal(image.pixels(), as_pillow_reads(data))


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    grey = np.array([[0, 257, 514], [25700, 65535, 32896]], dtype=np.uint16)
    pixels = decode(stored(Image.fromarray(grey), "PNG"), "x.png")
    np.testing.assert_array_equal(pixels[:, :, 0], [[0, 1, 2], [100, 255, 128]])
    np.testing.assert_array_equal(pixels[:, :, 0], pixels[:, :, 2])


def test_what_is_transparent_is_white() -> None:
    rgba = np.zeros((1, 3, 4), dtype=np.uint8)
    rgba[0] = [[200, 10, 10, 0], [200, 10, 10, 255], [0, 0, 0, 51]]
    pixels = decode(stored(Image.fromarray(rgba), "PNG"), "x.png")
    np.testing.assert_array_equal(pixels[0], [[255, 255, 255], [200, 10, 10], [204, 204, 204]])


def test_transparent_palette_colour_is_white() -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putdata([0, 1])
    pixels = decode(stored(palette, "PNG", transparency=0), "x.png")
    np.testing.assert_array_equal(pixels[0], [[255, 255, 255], [0, 0, 255]])


@pytest.mark.parametrize(
    ("turn", "shown"),
    [
        (1, [[1, 2], [3, 4]]), (2, [[2, 1], [4, 3]]), (3, [[4, 3], [2, 1]]), (4, [[3, 4], [1, 2]]),
        (5, [[1, 3], [2, 4]]), (6, [[3, 1], [4, 2]]), (7, [[4, 2], [3, 1]]), (8, [[2, 4], [1, 3]]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF"])
def test_image_is_shown_as_exif_turns_it(form: str, turn: int, shown: list[list[int]]) -> None:
    quarters = np.kron(np.array([[1, 2], [3, 4]]), np.ones((16, 24))).astype(np.uint8) * 50
    exif = Image.Exif()
    exif[0x0112] = turn
    data = stored(Image.fromarray(quarters).convert("RGB"), form, exif=exif)
    image = EncodedImage(data, "x")
    pixels = image.pixels()
    assert (image.height, image.width) == pixels.shape[:2] == ((32, 48) if turn < 5 else (48, 32))
    assert image.turned is (turn > 1)
    height, width = pixels.shape[:2]
    seen = pixels[[height // 4, 3 * height // 4]][:, [width // 4, 3 * width // 4], 0]
    np.testing.assert_allclose(seen / 50, shown, atol=0.05)


def test_large_jpeg_can_be_decoded_at_a_part_of_its_size() -> None:
    image = EncodedImage(stored(smooth(300, 401), "JPEG", quality=95), "x.jpg")
    whole, eighth = image.pixels(), image.pixels(8)
    assert (whole.shape, eighth.shape) == ((300, 401, 3), (38, 51, 3))
    assert abs(float(whole.mean()) - float(eighth.mean())) < 2


def test_first_picture_of_an_animation_is_read() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    data = stored(frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(decode(data, "x.gif")[0, 0], [255, 0, 0])


def png_of_size(width: int, height: int) -> bytes:
    """A PNG whose header alone claims the size."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def jpeg_of_size(width: int, height: int) -> bytes:
    data = bytearray(stored(smooth(8, 8), "JPEG"))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(data)


@pytest.mark.parametrize("make", [png_of_size, jpeg_of_size])
@pytest.mark.parametrize("side", [9_000, 20_000])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_bomb_is_refused_by_its_header(make: object, side: int) -> None:
    assert callable(make)
    with pytest.raises(DataError, match=r"big\.png has .* pixels(, more)? than the 80 million .* scale it down"):
        EncodedImage(make(side, side), "big.png")


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "BMP"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_cut_file_is_refused(form: str, share: float) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))
    data = stored(noise, form)
    with pytest.raises(DataError, match=r"^cut\.x .*replace or remove it$"):
        decode(data[: int(share * len(data))], "cut.x")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"^x is empty \(0 bytes\); replace or remove it"),
        (b"<html>not found</html>", "^x is no image of a known format"),
        (b"\xff\xd8\xff\xe0", "^x is"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "^x is no image of a known format"),
    ],
)
def test_what_is_no_image_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        decode(data, "x")


def test_floats_are_refused() -> None:
    with pytest.raises(DataError, match="floating-point"):
        decode(stored(Image.new("F", (3, 3)), "TIFF"), "x.tif")


_SAMPLES = [stored(smooth(20, 24), form) for form in ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP")]


@given(
    sample=st.sampled_from(_SAMPLES), place=st.floats(0, 1, exclude_max=True), value=st.binary(min_size=1, max_size=8)
)
@pytest.mark.filterwarnings("ignore")
def test_damage_gives_pixels_or_a_data_error(sample: bytes, place: float, value: bytes) -> None:
    at = int(place * len(sample))
    try:
        pixels = decode(sample[:at] + value + sample[at + len(value) :], "x")
    except DataError:
        return
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3
