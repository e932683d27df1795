"""Decoding hostile and unusual files, timm's evaluation geometry, and the deterministic views."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from autovision import image
from autovision.errors import ImageTooLarge, InvalidImage, InvalidInput
from autovision.records.models import Preprocessing


def encoded(picture: Image.Image, format_: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format_, **options)
    return buffer.getvalue()


def photo(width: int = 64, height: int = 48, seed: int = 0) -> Image.Image:
    """A picture with smooth parts and edges, different in each channel."""
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(0, 256, (9, 12, 3), np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def png_header(width: int, height: int) -> bytes:
    """A PNG of that size with hardly any data behind its header."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"x") + chunk(b"IEND", b"")


def prep(height: int = 224, width: int = 224, crop: float = 0.875, how: str = "bicubic") -> Preprocessing:
    half = (0.5, 0.5, 0.5)
    return Preprocessing(height=height, width=width, crop_pct=crop, interpolation=how, mean=half, std=half)


# ------------------------------------------------------------------------------------------------ decoding


@pytest.mark.parametrize(
    ("format_", "options", "tolerance"),
    [
        ("PNG", {}, 0),
        ("BMP", {}, 0),
        ("TIFF", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("JPEG", {"quality": 98, "subsampling": 0}, 8),
        ("JPEG", {"quality": 98, "subsampling": 0, "progressive": True}, 8),
    ],
)
def test_every_format_gives_the_picture(format_: str, options: dict[str, Any], tolerance: int) -> None:
    picture = photo()
    decoded = image.decode(encoded(picture, format_, **options))
    assert type(decoded) is Image.Image and decoded.mode == "RGB" and decoded.size == picture.size
    difference = np.abs(np.asarray(decoded).astype(int) - np.asarray(picture))
    assert difference.max() <= tolerance


def test_the_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for format_ in ("GIF", "WEBP", "PNG", "TIFF"):
        data = encoded(frames[0], format_, save_all=True, append_images=frames[1:])
        red, green, blue = image.decode(data).getpixel((3, 3))  # type: ignore[misc]
        assert red > 240 and green < 15 and blue < 15, format_


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied_once(orientation: int, format_: str) -> None:
    picture = photo(40, 24)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = (
        {"lossless": True}
        if format_ == "WEBP"
        else {"quality": 95, "subsampling": 0}
        if format_ == "JPEG"
        else {}
    )
    data = encoded(picture, format_, exif=exif, **options)
    plain = picture.copy()
    plain.getexif()[0x0112] = orientation
    expected = ImageOps.exif_transpose(plain)
    decoded = image.decode(data)
    assert decoded.size == expected.size
    error = np.abs(np.asarray(decoded).astype(int) - np.asarray(expected)).mean()
    assert error < 4
    if orientation > 1:
        assert decoded.size != picture.size or not np.array_equal(np.asarray(decoded), np.asarray(picture))


def test_damaged_exif_is_ignored() -> None:
    data = encoded(photo(), "JPEG", exif=b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\xff\xff\x01\x12garbage")
    assert image.decode(data).size == (64, 48)
    # Of these formats Pillow's parser does not forgive it.
    for format_ in ("PNG", "WEBP"):
        data = encoded(photo(), format_, exif=b"Exif\x00\x00MM\x00*")
        assert image.decode(data).size == (64, 48)


@pytest.mark.parametrize("format_", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_over_its_full_range(format_: str) -> None:
    values = np.array([[0, 128, 129, 257], [32768, 65407, 65408, 65535]], np.uint16)
    decoded = np.asarray(image.decode(encoded(Image.fromarray(values), format_)))
    assert decoded[..., 0].tolist() == [[0, 0, 1, 1], [128, 255, 255, 255]]
    assert (decoded == decoded[..., :1]).all()


def test_big_endian_16_bit_tiff() -> None:
    values = np.array([[0, 65535]], np.uint16)
    little = encoded(Image.fromarray(values), "TIFF")
    big = bytearray(encoded(Image.frombytes("I;16B", (2, 1), values.astype(">u2").tobytes()), "TIFF"))
    for data in (little, bytes(big)):
        assert np.asarray(image.decode(data))[0, :, 0].tolist() == [0, 255]


def test_32_bit_integers_within_16_bits_are_scaled_and_others_refused() -> None:
    data = encoded(Image.fromarray(np.array([[0, 65535]], np.int32)), "TIFF")
    assert np.asarray(image.decode(data))[0, :, 0].tolist() == [0, 255]
    for values in ([[-1, 3]], [[0, 65536]]):
        with pytest.raises(InvalidImage, match=r"32-bit integers from (-1|0) to (3|65536)"):
            image.decode(encoded(Image.fromarray(np.array(values, np.int32)), "TIFF"))


def test_floats_within_0_to_1_are_scaled_and_others_refused() -> None:
    data = encoded(Image.fromarray(np.array([[0, 0.5, 1]], np.float32)), "TIFF")
    assert np.asarray(image.decode(data))[0, :, 0].tolist() == [0, 128, 255]
    for bad in (-0.1, 255.0, float("nan"), float("inf")):
        with pytest.raises(InvalidImage, match="floating-point values"):
            image.decode(encoded(Image.fromarray(np.array([[0, bad]], np.float32)), "TIFF"))


def test_transparency_shows_white() -> None:
    red, clear = (255, 0, 0), (255, 255, 255)
    rgba = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    rgba.putpixel((1, 0), (10, 20, 30, 0))
    grey = Image.new("LA", (2, 1), (0, 255))
    grey.putpixel((1, 0), (7, 0))
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 255, 0])
    palette.putpixel((1, 0), 1)
    keyed = Image.new("RGB", (2, 1), red)
    keyed.putpixel((1, 0), (0, 255, 0))
    cases = {
        "alpha": (encoded(rgba, "PNG"), red),
        "webp": (encoded(rgba, "WEBP", lossless=True), red),
        "tiff": (encoded(rgba, "TIFF"), red),
        "grey": (encoded(grey, "PNG"), (0, 0, 0)),
        "palette index": (encoded(palette, "PNG", transparency=1), red),
        "palette bytes": (encoded(palette, "PNG", transparency=b"\xff\x00"), red),
        "gif": (encoded(palette, "GIF", transparency=1), red),
        "colour key": (encoded(keyed, "PNG", transparency=(0, 255, 0)), red),
    }
    for name, (data, first) in cases.items():
        decoded = image.decode(data)
        assert (decoded.getpixel((0, 0)), decoded.getpixel((1, 0))) == (first, clear), name


def test_half_transparency_is_mixed() -> None:
    assert (
        image.decode(encoded(Image.new("RGBA", (1, 1), (0, 0, 0, 51)), "PNG")).getpixel((0, 0)) == (204,) * 3
    )


def test_cmyk_palette_and_1_bit() -> None:
    cmyk = encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95)
    assert np.abs(np.asarray(image.decode(cmyk))[8, 8].astype(int) - (255, 0, 0)).max() < 12
    assert image.decode(encoded(Image.new("CMYK", (4, 4), (0, 0, 0, 255)), "TIFF")).getpixel((0, 0)) == (
        0,
        0,
        0,
    )
    palette = Image.new("P", (1, 1))
    palette.putpalette([12, 34, 56])
    for format_ in ("PNG", "BMP", "GIF", "TIFF"):
        assert image.decode(encoded(palette, format_)).getpixel((0, 0)) == (12, 34, 56)
    bits = Image.new("1", (2, 1))
    bits.putpixel((1, 0), 1)
    for format_ in ("PNG", "BMP", "TIFF"):
        assert np.asarray(image.decode(encoded(bits, format_)))[0, :, 0].tolist() == [0, 255]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b"this is a text file named .png", "not a JPEG, PNG, WebP, BMP, TIFF or GIF"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "begins with b'<svg xmlns='|b\"<svg xmlns='"),
        (b"\x89PNG\r\n\x1a\n", "cannot be decoded"),
        (b"\xff\xd8\xff", "cannot be decoded"),
        (b"BM", "cannot be decoded"),
        (b"II*\x00", "cannot be decoded"),
        (b"GIF89a", "cannot be decoded"),
        (png_header(0, 5), "cannot be decoded|0 by 5"),
        (png_header(5, 5), "cannot be decoded"),
    ],
)
def test_what_is_not_an_image_is_refused_with_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(InvalidImage, match=reason):
        image.decode(data)


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_truncated_files_are_refused(format_: str) -> None:
    data = encoded(photo(200, 150), format_)
    for share in (0.1, 0.5, 0.9):
        with pytest.raises(InvalidImage, match="; it is damaged or incomplete"):
            image.decode(data[: int(len(data) * share)])


def test_a_huge_image_is_refused_by_its_header_without_a_warning() -> None:
    for side in (10_000, 30_000):  # below and above Pillow's own limits of 89 and 179 million pixels
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with pytest.raises(ImageTooLarge, match=rf"{side:,} by {side:,} pixels.* 50,000,000 are allowed"):
                image.decode(png_header(side, side))
        assert not caught, "and there are no pixels behind it: whoever decoded them would call it damaged"


def test_a_huge_webp_is_too_large_too() -> None:
    payload = struct.pack("<I", 0) + (16382).to_bytes(3, "little") * 2
    lossless = b"VP8L" + struct.pack("<I", 5) + b"\x2f" + struct.pack("<I", 16382 | 16382 << 14) + b"\x00"
    body = b"WEBPVP8X" + struct.pack("<I", 10) + payload + lossless
    with pytest.raises(ImageTooLarge):
        image.decode(b"RIFF" + struct.pack("<I", len(body)) + body)


def test_limits_can_be_set() -> None:
    data = encoded(photo(20, 10), "PNG")
    assert image.decode(data, max_pixels=200, max_bytes=len(data)).size == (20, 10)
    with pytest.raises(ImageTooLarge, match="20 by 10 pixels, 200 in all, and 199"):
        image.decode(data, max_pixels=199)
    with pytest.raises(ImageTooLarge, match=rf"{len(data):,} bytes"):
        image.decode(data, max_bytes=len(data) - 1)


SEEDS = {
    "jpeg": encoded(photo(), "JPEG", exif=Image.Exif()),
    "progressive": encoded(photo(), "JPEG", progressive=True),
    "png": encoded(photo(), "PNG"),
    "palette": encoded(photo().quantize(16), "PNG", transparency=3),
    "png 16": encoded(Image.fromarray(np.arange(256, dtype=np.uint16).reshape(16, 16) * 200), "PNG"),
    "webp": encoded(photo(), "WEBP"),
    "webp animation": encoded(photo(), "WEBP", save_all=True, append_images=[photo(seed=1)]),
    "bmp": encoded(photo(16, 16), "BMP"),
    "tiff": encoded(photo(16, 16), "TIFF", compression="tiff_lzw"),
    "tiff raw": encoded(photo(16, 16), "TIFF"),
    "tiff float": encoded(Image.fromarray(np.eye(9, dtype=np.float32)), "TIFF"),
    "gif": encoded(photo().quantize(16), "GIF", save_all=True, append_images=[photo(seed=1).quantize(16)]),
}


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A valid file with bytes changed (more often near its header), cut out, inserted or doubled."""
    data = bytearray(SEEDS[draw(st.sampled_from(sorted(SEEDS)))])
    for _ in range(draw(st.integers(1, 6))):
        near_header = draw(st.booleans())
        at = draw(st.integers(0, min(len(data), 200) if near_header else len(data)))
        what = draw(st.sampled_from(["set", "set", "set", "cut", "insert", "double"]))
        some = draw(st.binary(min_size=1, max_size=8))
        if what == "set":
            data[at : at + len(some)] = some
        elif what == "cut":
            del data[at : at + draw(st.integers(1, 64))]
        elif what == "insert":
            data[at:at] = some
        else:
            data[at:at] = data[at : at + draw(st.integers(1, 64))]
    return bytes(data)


@settings(max_examples=700, deadline=None)
@given(mutated())
@example(SEEDS["tiff"][:8])
def test_mutated_files_decode_or_are_invalid_images(data: bytes) -> None:
    try:
        decoded = image.decode(data, max_pixels=2_000_000)
    except InvalidImage as error:
        assert str(error) and "\n" not in str(error) and len(str(error)) < 400
    else:
        assert decoded.mode == "RGB" and decoded.width * decoded.height <= 2_000_000


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"RIFF", b"II*\0", b"GIF89a", b"BM"]),
    st.binary(),
)
def test_random_bytes_behind_a_magic_number(magic: bytes, rest: bytes) -> None:
    with suppress(InvalidImage):
        assert image.decode(magic + rest, max_pixels=100_000).mode == "RGB"


# ------------------------------------------------------------------------------------------- preprocessing


def by_timm(picture: Image.Image, p: Preprocessing) -> np.ndarray[Any, Any]:
    from timm.data import create_transform

    transform = create_transform(
        (3, p.height, p.width),
        is_training=False,
        interpolation=p.interpolation,
        crop_pct=p.crop_pct,
        crop_mode=p.crop_mode,
        use_prefetcher=True,
    )
    return np.asarray(transform(picture)).transpose(1, 2, 0)


@pytest.mark.parametrize(
    "size", [(300, 300), (640, 480), (333, 517), (100, 61), (1201, 257), (37, 2000), (256, 256)]
)
@pytest.mark.parametrize(
    "p",
    [
        prep(),
        prep(240, 240, 0.882, "bilinear"),
        prep(260, 260, 0.89, "bicubic"),
        prep(96, 96, 1.0, "lanczos"),
        prep(128, 192, 0.9, "bicubic"),
        prep(200, 100, 1.0, "bilinear"),
        prep(128, 128, 0.9, "bicubic").with_(crop_mode="squash"),
        prep(128, 192, 1.0, "bilinear").with_(crop_mode="squash"),
    ],
    ids=lambda p: f"{p.height}x{p.width}-{p.crop_pct}-{p.interpolation}-{p.crop_mode}",
)
def test_preprocessing_equals_timms_evaluation_transform(size: tuple[int, int], p: Preprocessing) -> None:
    picture = photo(*size)
    ours, theirs = image.preprocess(picture, p), by_timm(picture, p)
    assert ours.shape == theirs.shape == (p.height, p.width, 3) and ours.dtype == np.uint8
    if max(size) <= 8 * min(size):
        assert np.array_equal(ours, theirs)
    else:
        difference = np.abs(ours.astype(int) - theirs)
        assert difference.max() <= 2 and (difference > 0).mean() < 0.02


@pytest.mark.parametrize("how", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_loading_at_once_equals_the_two_steps(how: str) -> None:
    grey = photo(300, 200).convert("L")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    for data in (
        encoded(photo(300, 200), "PNG"),
        encoded(grey, "PNG"),
        encoded(grey, "JPEG"),
        encoded(grey.resize((900, 40)), "PNG"),
        encoded(deep, "PNG"),
    ):
        loaded = image.load(data, prep(how=how))
        assert loaded.shape == (224, 224, 3) and loaded.flags.writeable
        assert np.array_equal(loaded, image.preprocess(image.decode(data), prep(how=how)))


def test_equality_holds_for_every_interpolation() -> None:
    for how in ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"):
        p = prep(how=how)
        assert np.array_equal(image.preprocess(photo(513, 700), p), by_timm(photo(513, 700), p)), how


@settings(max_examples=300, deadline=None)
@given(
    st.integers(1, 700),
    st.integers(1, 700),
    st.integers(1, 90),
    st.integers(1, 90),
    st.floats(0.05, 1.0),
    st.sampled_from(["nearest", "bilinear", "bicubic", "lanczos"]),
)
def test_preprocessing_takes_any_size(w: int, h: int, height: int, width: int, crop: float, how: str) -> None:
    pixels = image.preprocess(Image.new("RGB", (w, h), (10, 20, 30)), prep(height, width, crop, how))
    assert pixels.shape == (height, width, 3)
    assert (pixels == (10, 20, 30)).all()


def test_a_long_thin_image_costs_no_more_than_another(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    resize = Image.Image.resize

    def watched(self: Image.Image, size: tuple[int, int], *args: Any, **options: Any) -> Image.Image:
        sizes.append(size)
        return resize(self, size, *args, **options)

    monkeypatch.setattr(Image.Image, "resize", watched)
    pixels = image.preprocess(Image.new("RGB", (2_000_000, 1), (1, 2, 3)), prep())
    assert pixels.shape == (224, 224, 3) and (pixels == (1, 2, 3)).all()
    assert sizes == [(224, 224)], "resized as a whole it would have a hundred billion pixels"


def test_preprocessing_that_cannot_be_done_is_named() -> None:
    with pytest.raises(InvalidInput, match=r"'bicubik'.*did you mean 'bicubic'"):
        image.preprocess(photo(), prep(how="bicubik"))
    for crop in (0.0, 1.5, float("nan")):
        with pytest.raises(InvalidInput, match="crop_pct"):
            image.preprocess(photo(), prep(crop=crop))


# -------------------------------------------------------------------------------------------------- views


def pixels_of(n: int = 4, side: int = 32) -> np.ndarray[Any, Any]:
    return np.stack([np.asarray(photo(side, side, seed)) for seed in range(n)])


def test_the_number_of_views() -> None:
    assert {name: image.view_count(name) for name in image.VIEWS} == {
        "none": 1,
        "flip": 2,
        "dihedral": 8,
        "crop": 6,
    }


@pytest.mark.parametrize("augmentation", list(image.VIEWS))
def test_views_of_a_batch_are_the_views_of_its_images_and_differ(augmentation: str) -> None:
    pixels = pixels_of()
    before = pixels.copy()
    views = [image.apply_view(pixels, augmentation, index) for index in range(image.view_count(augmentation))]
    assert np.array_equal(views[0], pixels)
    for index, view in enumerate(views):
        assert view.shape == pixels.shape and view.dtype == np.uint8 and view.flags.c_contiguous
        singly = [image.apply_view(one, augmentation, index) for one in pixels]
        assert np.array_equal(view, np.stack(singly))
        assert np.array_equal(view, image.apply_view(pixels, augmentation, index))
        assert all(not np.array_equal(view, other) for other in views[:index])
    assert np.array_equal(pixels, before)


def test_dihedral_views_are_the_symmetries_of_the_square() -> None:
    square = pixels_of(1, 8)[0]
    expected = {np.rot90(base, turns).tobytes() for base in (square, square[:, ::-1]) for turns in range(4)}
    assert {image.apply_view(square, "dihedral", index).tobytes() for index in range(8)} == expected
    assert len(expected) == 8


def test_flip_is_horizontal() -> None:
    square = pixels_of(1)[0]
    assert np.array_equal(image.apply_view(square, "flip", 1), square[:, ::-1])


def test_crops_change_the_picture_mildly() -> None:
    pixels = pixels_of()
    for index in range(1, 6):
        view = image.apply_view(pixels, "crop", index)
        assert abs(view.mean() - pixels.mean()) < 30
        assert view.std() > 0.5 * pixels.std()


def test_views_of_other_shapes() -> None:
    wide = np.zeros((5, 9, 3), np.uint8)
    assert image.apply_view(wide, "crop", 3).shape == wide.shape
    assert image.apply_view(wide, "dihedral", 2).shape == wide.shape
    with pytest.raises(InvalidInput, match="square images, and not 5 by 9"):
        image.apply_view(wide, "dihedral", 4)
    for augmentation in image.VIEWS:
        for index in range(image.view_count(augmentation)):
            assert image.apply_view(np.zeros((0, 8, 8, 3), np.uint8), augmentation, index).shape == (
                0,
                8,
                8,
                3,
            )


def test_views_that_do_not_exist() -> None:
    with pytest.raises(InvalidInput, match=r"'flips'.*did you mean 'flip'"):
        image.view_count("flips")
    with pytest.raises(InvalidInput, match="views 0 to 1, and not 2"):
        image.apply_view(pixels_of(), "flip", 2)
    with pytest.raises(InvalidInput, match="views 0 to 1, and not -1"):
        image.apply_view(pixels_of(), "flip", -1)
    with pytest.raises(InvalidInput, match="float32"):
        image.apply_view(np.zeros((2, 2, 3), np.float32), "flip", 1)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match=r"\(2, 2\)"):
        image.apply_view(np.zeros((2, 2), np.uint8), "flip", 1)
