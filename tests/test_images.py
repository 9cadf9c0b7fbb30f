import struct
import subprocess
import sys
import warnings
import zlib
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from goodfit.data.images import INTERPOLATIONS, Geometry, Header, open_picture, opened, read_header, to_pixels
from goodfit.errors import DataError

RAMP = np.arange(10, dtype=np.uint8).reshape(2, 5) * 25


def pixels(image):
    return np.asarray(image).tolist()


def png(width, height, bit_depth=8, color_type=0, chunks=(), data=b""):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, bit_depth, color_type, 0, 0, 0)
    parts = [
        chunk(b"IHDR", header),
        *(chunk(*item) for item in chunks),
        chunk(b"IDAT", zlib.compress(data)),
        chunk(b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def saved(image, suffix, **options):
    file = BytesIO()
    image.save(file, suffix, **options)
    return file.getvalue()


def palette(transparent=None):
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putdata([0, 1])
    return saved(image, "PNG", **({} if transparent is None else {"transparency": transparent}))


GREY_CASES = {
    "1": (saved(Image.fromarray(RAMP > 90), "PNG"), ((RAMP > 90) * 255).tolist()),
    "L": (saved(Image.fromarray(RAMP), "PNG"), RAMP.tolist()),
    "L bmp": (saved(Image.fromarray(RAMP), "BMP"), RAMP.tolist()),
    "L pgm": (saved(Image.fromarray(RAMP), "PPM"), RAMP.tolist()),
    "16-bit png": (saved(Image.fromarray(RAMP.astype(np.uint16) * 257 + 100), "PNG"), RAMP.tolist()),
    "16-bit tiff": (saved(Image.fromarray(RAMP.astype(np.uint16) * 257 - (RAMP > 0) * np.uint16(100)), "TIFF"), RAMP.tolist()),
    "16-bit pgm": (b"P5 2 1 65535\n" + struct.pack(">HH", 257 * 7, 65535), [[7, 255]]),
    "32-bit tiff": (saved(Image.fromarray(RAMP.astype(np.int32) * 257), "TIFF"), RAMP.tolist()),
    "float tiff": (saved(Image.fromarray(RAMP.astype(np.float32) / 255), "TIFF"), RAMP.tolist()),
    "LA": (saved(Image.merge("LA", [Image.new("L", (1, 1), 50), Image.new("L", (1, 1), 0)]), "PNG"), [[255]]),
    "L with a transparent level": (png(2, 1, chunks=[(b"tRNS", b"\x00\x05")], data=b"\x00\x05\x06"), [[255, 6]]),
}
COLOR_CASES = {
    "P": (palette(), [[[255, 0, 0], [0, 0, 255]]]),
    "P with a transparent entry": (palette(transparent=1), [[[255, 0, 0], [255, 255, 255]]]),
    "P with alpha per entry": (palette(transparent=bytes([255, 0])), [[[255, 0, 0], [255, 255, 255]]]),
    "GIF": (
        saved(Image.new("RGB", (1, 1), "red"), "GIF", save_all=True, append_images=[Image.new("RGB", (1, 1), "lime")]),
        [[[255, 0, 0]]],
    ),
    "RGB webp": (saved(Image.new("RGB", (1, 1), (10, 20, 30)), "WEBP", lossless=True), [[[10, 20, 30]]]),
    "RGBA": (saved(Image.new("RGBA", (1, 1), (0, 100, 200, 0)), "PNG"), [[[255, 255, 255]]]),
    "RGBA half": (saved(Image.new("RGBA", (1, 1), (0, 0, 0, 128)), "PNG"), [[[127, 127, 127]]]),
    "RGB with a transparent colour": (
        saved(Image.new("RGB", (1, 1), (1, 2, 3)), "PNG", transparency=(1, 2, 3)),
        [[[255, 255, 255]]],
    ),
    "CMYK tiff": (saved(Image.new("CMYK", (1, 1), (255, 0, 0, 0)), "TIFF"), [[[0, 255, 255]]]),
}


@pytest.mark.parametrize("name", GREY_CASES)
def test_a_grey_picture_of_any_mode_has_the_same_grey_in_both_modes(name):
    content, expected = GREY_CASES[name]
    assert pixels(open_picture(content, "L")) == expected
    assert pixels(open_picture(content, "RGB")) == [[[value] * 3 for value in row] for row in expected]
    with opened(content) as image:
        assert read_header(image).grey


@pytest.mark.parametrize("name", COLOR_CASES)
def test_a_coloured_picture_of_any_mode_becomes_rgb_on_white(name):
    content, expected = COLOR_CASES[name]
    assert pixels(open_picture(content, "RGB")) == expected
    assert pixels(open_picture(content, "L")) == pixels(Image.fromarray(np.array(expected, np.uint8)).convert("L"))
    with opened(content) as image:
        assert not read_header(image).grey


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "HSV", "I", "I;16", "I;16B", "F"]
)
@pytest.mark.parametrize("wanted", ["RGB", "L"])
def test_every_mode_in_memory_is_taken(mode, wanted):
    image = open_picture(Image.new(mode, (3, 2)), wanted)
    assert (image.mode, image.size) == (wanted, (3, 2))


@pytest.mark.parametrize("suffix", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_upright(suffix, orientation):
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :8] = 255  # the top left corner is white
    turns = [None, None, 0, 3, 1, 5, 2, 6, 4]  # what a camera held so would have stored, as PIL transpositions
    stored = Image.fromarray(upright)
    if turns[orientation] is not None:
        stored = stored.transpose(turns[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = saved(stored, suffix, exif=exif)
    image = np.asarray(open_picture(content, "L"))
    assert image.shape == (16, 32)
    assert image[:6, :6].min() > 200
    assert image[:, 12:].max() < 50
    with opened(content) as lazily:
        assert read_header(lazily) == Header(32, 16, False)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (RAMP, RAMP),
        (RAMP[:, :, None], RAMP),
        (RAMP[None], RAMP),
        (RAMP.astype(np.float64) / 255, RAMP),
        (RAMP.astype(np.float16) / 255, RAMP),
        (RAMP.astype(np.uint16) * 257, RAMP),
        (RAMP > 90, (RAMP > 90) * 255),
        (np.stack([RAMP] * 3), RAMP),
        (np.dstack([RAMP, RAMP, RAMP, RAMP * 0 + 255]), RAMP),
    ],
)
def test_arrays_of_pixels_are_pictures(array, expected):
    assert pixels(open_picture(array, "L")) == expected.tolist()


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((2, 3, 5)), r"has shape \(2, 3, 5\)"),
        (np.zeros(7), r"has shape \(7,\)"),
        (np.zeros((0, 3)), "has no pixels"),
        (np.full((2, 2), 7.0), "has pixels from 7 to 7; give fractions from 0 to 1"),
        (np.full((2, 2), np.nan), "has pixels from nan to nan"),
        (np.zeros((2, 2), np.int64), "has int64 pixels"),
    ],
)
def test_arrays_that_are_no_picture_are_refused(array, reason):
    with pytest.raises(DataError, match=f"^the picture {reason}"):
        open_picture(array, "RGB")


def jpeg():
    return saved(Image.effect_noise((64, 64), 50), "JPEG")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is damaged, or no picture in a known format"),
        (b"hello", "is damaged, or no picture in a known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is damaged, or no picture in a known format"),
        (jpeg()[:-900], "cannot be read: image file is truncated"),
        (png(9, 9, data=b""), "cannot be read"),
        (png(20_000, 20_000), "has 400 megapixels; at most 100 are decoded"),
        (png(14_000, 14_000), "has 196 megapixels; at most 100 are decoded"),
        (png(10_000, 10_001), "has 101 megapixels; at most 100 are decoded"),
    ],
    ids=["empty", "text", "PostScript", "truncated", "no pixels", "bomb", "196 MP", "101 MP"],
)
def test_a_bad_file_is_one_error_that_names_it(tmp_path, content, reason):
    path = tmp_path / "ünï (1) .jpg"
    path.write_bytes(content)
    with pytest.raises(DataError, match="ünï") as caught:
        open_picture(path, "RGB")
    assert str(caught.value).startswith(f"{path} {reason}")
    assert "\n" not in str(caught.value)
    with path.open("rb") as file, pytest.raises(DataError, match=f"^cat/1.jpg {reason}"):
        open_picture(file, "RGB", "cat/1.jpg")


def test_a_large_picture_below_the_limit_is_decoded_without_a_warning():
    with warnings.catch_warnings(record=True) as caught, opened(png(9_500, 9_500)) as image:
        assert read_header(image) == Header(9_500, 9_500, True)
    assert not caught


def test_missing_files_and_folders_are_named(tmp_path):
    with pytest.raises(DataError, match=r"no\.png cannot be read: No such file"):
        open_picture(tmp_path / "no.png", "RGB")
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        open_picture(tmp_path, "RGB")


@pytest.mark.parametrize(("source", "kind"), [(None, "a NoneType"), (3, "an int"), ([None], "a list")])
def test_what_is_no_picture_is_named_by_its_type(source, kind):
    with pytest.raises(DataError, match=f"the picture is {kind}; give a path, a file's bytes"):
        open_picture(source, "RGB")


@settings(deadline=None)  # some damage makes a decoder take memory, which takes time
@given(st.binary(max_size=40), st.integers(0, 2_000), st.sampled_from(["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP", "PPM"]))
def test_no_damage_gets_past_the_error(noise, place, suffix):
    content = saved(Image.radial_gradient("L").resize((24, 24)), suffix)
    place %= len(content)
    damaged = content[:place] + noise + content[place + len(noise) :]
    try:
        image = open_picture(damaged, "RGB")
    except DataError as error:
        assert str(error).startswith("the picture ")  # noqa: PT017
    else:
        assert image.mode == "RGB"


def test_a_picture_covers_the_size_and_is_cropped_at_the_centre():
    wide = Image.effect_noise((30, 10), 90)
    expected = np.asarray(wide.resize((15, 5), Image.Resampling.BILINEAR))[None, :, 5:10]
    assert (to_pixels(wide, Geometry("L", 5, 5)) == expected).all()
    tall = wide.transpose(Image.Transpose.TRANSPOSE)
    expected = np.asarray(tall.resize((5, 15), Image.Resampling.BILINEAR))[None, 5:10]
    assert (to_pixels(tall, Geometry("RGB", 5, 5)) == expected).all()
    tiny = to_pixels(Image.new("RGB", (1, 1), "white"), Geometry("RGB", 4, 7))
    assert (tiny.shape, int(tiny.min())) == ((3, 4, 7), 255)


def test_a_picture_of_the_right_size_is_untouched():
    noise = np.random.default_rng(0).integers(0, 256, (7, 5, 3), dtype=np.uint8)
    assert (to_pixels(Image.fromarray(noise), Geometry("RGB", 7, 5)) == noise.transpose(2, 0, 1)).all()


def test_shrinking_averages():
    checks = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    shrunk = to_pixels(Image.fromarray(checks), Geometry("L", 8, 8)).astype(int)
    assert abs(shrunk - 127).max() < 12


def test_torch_is_not_imported():
    code = "import sys, goodfit.data.cache; from PIL import Image; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}, check=False).returncode == 0


@pytest.mark.parametrize("size", [(30, 20), (20, 30), (33, 21), (21, 33), (7, 7), (1, 5), (64, 9)])
@pytest.mark.parametrize(
    ("resize", "crop"),
    [((9,), (9, 9)), ((9,), (6, 5)), ((12, 7), (12, 7)), ((12, 7), (5, 6)), ((), (9, 8)), ((6,), (11, 14)), ((21,), (20, 20))],
)
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_resize_and_centre_crop_are_torchvisions_to_the_byte(size, resize, crop, mode):
    from torchvision import transforms

    image = Image.effect_noise(size, 90).convert(mode)
    steps = [transforms.Resize(resize if len(resize) == 2 else resize[0])] if resize else []
    expected = transforms.Compose([*steps, transforms.CenterCrop(crop), transforms.PILToTensor()])(image)
    assert (to_pixels(image, Geometry(mode, *crop, resize)) == expected.numpy()).all()


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_each_interpolation_is_torchvisions(interpolation):
    from torchvision import transforms

    image = Image.effect_noise((31, 20), 90)
    resize = transforms.Resize(12, transforms.InterpolationMode(interpolation))
    expected = transforms.Compose([resize, transforms.CenterCrop(12), transforms.PILToTensor()])(image)
    assert (to_pixels(image, Geometry("L", 12, 12, (12,), interpolation)) == expected.numpy()).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_plain_pictures_are_those_of_torchvisions_loader(tmp_path, mode):
    from torchvision.datasets.folder import pil_loader

    suffix = "tiff" if mode == "CMYK" else "png"
    image = Image.effect_noise((6, 5), 90)
    image = Image.fromarray(np.asarray(image).astype(np.uint16) * 200) if mode == "I;16" else image.convert(mode)
    exif = Image.Exif()
    if suffix == "png":  # Pillow turns a TIFF, or does not, by the way it is opened
        exif[0x0112] = 6
    image.save(tmp_path / f"picture.{suffix}", exif=exif)
    expected = np.asarray(pil_loader(tmp_path / f"picture.{suffix}"))
    with opened(tmp_path / f"picture.{suffix}") as image:
        assert (to_pixels(image, Geometry("RGB", *expected.shape[:2], (), plain=True)) == expected.transpose(2, 0, 1)).all()
    with opened(tmp_path / f"picture.{suffix}") as image:
        grey = np.asarray(Image.fromarray(expected).convert("L"))
        assert (to_pixels(image, Geometry("L", *expected.shape[:2], (), plain=True))[0] == grey).all()


def test_a_picture_of_another_size_is_refused_where_it_must_be_exact():
    with opened(np.zeros((5, 6), np.uint8)) as image:
        assert to_pixels(image, Geometry("L", 5, 6, (), exact=True)).shape == (1, 5, 6)
    with pytest.raises(DataError, match="has 5 x 6 pixels, not 6 x 6"), opened(np.zeros((5, 6), np.uint8)) as image:
        to_pixels(image, Geometry("L", 6, 6, (), exact=True))


def test_a_resize_that_would_fill_the_memory_is_refused():
    with pytest.raises(DataError, match="has 250 megapixels"), opened(np.zeros((1, 1000), np.uint8)) as image:
        to_pixels(image, Geometry("L", 500, 500, (500,)))
