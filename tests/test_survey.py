import os

import numpy as np
import pytest
import torch
from PIL import Image

from goodfit.data import cache
from goodfit.data.cache import DecodedPictures, cache_directory, decode_pictures
from goodfit.data.folder import read_folder
from goodfit.data.images import Geometry
from goodfit.data.survey import Survey, look_at_names, read_names
from goodfit.errors import DataError

TINY = 1000  # bytes, which hold no picture of these tests' folders


def make(root, count, size=(12, 10)):
    """Noise, of which each picture has its own."""
    root.mkdir(parents=True, exist_ok=True)
    names = [f"{number:04}.png" for number in range(count)]
    for number, name in enumerate(names):
        pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
        Image.fromarray(pixels).save(root / name)
    return names


def survey(root, names, budget=TINY, **options):
    return decode_pictures(root, names, wanted=0, num_training=len(names), budget=budget, or_survey=True, **options)


def stored(root, names):
    return [np.asarray(Image.open(root / name)).transpose(2, 0, 1) for name in names]


@pytest.mark.parametrize("processes", [1, 2])
def test_what_is_known_of_pictures_is_exact(tmp_path, monkeypatch, processes):
    monkeypatch.setattr(cache, "FEW", 0)
    names = make(tmp_path, 70)
    (tmp_path / names[3]).write_bytes(b"bad")
    seen = []
    found = survey(tmp_path, names, processes=processes, progress=lambda *now: seen.append(now))
    assert isinstance(found, Survey)
    assert (found.count, found.geometry, list(found.unreadable)) == (69, Geometry("RGB", 10, 12), [names[3]])
    assert seen[-1] == (70, 70)
    readable = names[:3] + names[4:]
    for picture, sums in zip(stored(tmp_path, readable), found.sums.tolist(), strict=True):
        wide = picture.astype(np.int64)
        assert sums == [wide.sum((1, 2)).tolist(), (wide**2).sum((1, 2)).tolist()]
    digests = [digest.tobytes().hex() for digest in found.digests]
    pixels = read_names(str(tmp_path), readable, found.geometry, digests)
    assert list(pixels) == [picture.tobytes() for picture in stored(tmp_path, readable)]


def test_a_survey_is_kept_and_pictures_are_looked_at_once(tmp_path):
    names = make(tmp_path / "data", 5)
    seen = []
    first = survey(tmp_path / "data", names)
    again = survey(tmp_path / "data", names, progress=lambda *now: seen.append(now))
    assert not seen
    assert again.has_pictures_of(first)
    assert (again.geometry, again.sums.tolist()) == (first.geometry, first.sums.tolist())
    (file,) = cache_directory().iterdir()
    assert file.suffix == ".survey"
    Image.new("RGB", (12, 10)).save(tmp_path / "data" / names[0])
    assert not survey(tmp_path / "data", names).has_pictures_of(first)


def test_with_room_the_pictures_are_decoded_after_all(tmp_path):
    names = make(tmp_path / "data", 5)
    assert isinstance(survey(tmp_path / "data", names), Survey)
    assert isinstance(survey(tmp_path / "data", names, budget=None), DecodedPictures)
    assert isinstance(survey(tmp_path / "data", names), DecodedPictures)  # which are there now


def test_a_damaged_survey_is_made_anew(tmp_path):
    names = make(tmp_path / "data", 5)
    whole = survey(tmp_path / "data", names)
    (file,) = cache_directory().iterdir()
    content = file.read_bytes()
    for damaged in (b"", content[:-9], content[200:], content[:-8] + b"\xff" * 8, b"\x00" + content[1:], content[8:]):
        file.write_bytes(damaged)
        assert survey(tmp_path / "data", names).has_pictures_of(whole)
        assert Survey.load(file).has_pictures_of(whole)


def test_a_survey_that_is_not_used_goes(tmp_path):
    survey(tmp_path / "old", make(tmp_path / "old", 3))
    (old,) = cache_directory().iterdir()
    os.utime(old, (0, 0))
    survey(tmp_path / "new", make(tmp_path / "new", 4))
    assert not old.exists()


def test_the_rest_of_the_pictures_corrects_a_first_look(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "SAMPLE", 4)  # looks at every third
    for row in range(12):
        size = (40, 40) if row % 3 == 0 else (70, 70)
        Image.new("RGB", size, (row, 0, 0)).save(tmp_path / f"{row:02}.png")
    found = survey(tmp_path, [f"{row:02}.png" for row in range(12)])
    assert found.geometry == Geometry("RGB", 64, 64)
    assert found.sums[:, 0, 0].tolist() == [row * 64 * 64 for row in range(12)]


def test_no_picture_that_can_be_read_is_an_error(tmp_path):
    names = make(tmp_path, 3)
    for name in names:
        (tmp_path / name).write_bytes(b"bad")
    with pytest.raises(DataError, match=r"none of the 3 pictures in .* can be read; the first: 0000\.png is damaged"):
        survey(tmp_path, names)


def test_a_picture_that_is_another_by_now_is_named(tmp_path):
    names = make(tmp_path, 2)
    geometry = Geometry("RGB", 10, 12)
    digests = [looked[-1] for looked in look_at_names(str(tmp_path), names, geometry)]
    Image.new("RGB", (12, 10)).save(tmp_path / names[1])
    with pytest.raises(DataError, match=r"^0001\.png is another picture than when it was first read; put it back as it was$"):
        list(read_names(str(tmp_path), names, geometry, digests))
    (tmp_path / names[0]).unlink()
    with pytest.raises(DataError, match=r"^0000\.png cannot be read: No such file .*; it could be read before: put it back"):
        list(read_names(str(tmp_path), names, geometry, digests))


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_the_data_are_the_same_in_files_and_decoded(tmp_path, mode, monkeypatch):
    for number in range(12):
        folder = tmp_path / "data" / ("train", "val", "test")[number % 3] / ("cat", "dog")[number // 6]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 200 + number, (9, 7, 3)).astype(np.uint8)
        Image.fromarray(pixels).convert(mode).save(folder / f"{number}.png")
    (tmp_path / "data" / "train" / "cat" / "bad.png").write_bytes(b"bad")
    from goodfit.data.splits import build_dataset

    in_files = read_folder(tmp_path / "data", budget=10, skip_bad=True)
    monkeypatch.setenv("GOODFIT_CACHE", str(tmp_path / "other"))
    decoded = read_folder(tmp_path / "data", skip_bad=True)
    assert decoded.notes == in_files.notes[:-1]
    assert in_files.notes[-1] == (
        f"12 pictures of 9 x 7 pixels take {12 * 63 * (3 if mode == 'RGB' else 1) / 1e9:.3g} GB decoded, and 1e-08 GB are allowed: "
        "they are read from their files in each epoch; to decode them once, allow more with --set data.budget=0.1"
    )
    ours, theirs = (build_dataset(raw, val=0.1, test=0.1, max_train=3, seed=4) for raw in (in_files, decoded))
    assert ours.fingerprint == theirs.fingerprint
    assert ours.transform == theirs.transform  # mean and deviation, to the last bit
    assert ours.train.rows.tolist() == theirs.train.rows.tolist()
    for name, part in ours.parts.items():
        rows = torch.arange(len(part.targets)).flip(0)
        assert torch.equal(part.inputs.index_select(0, rows), theirs.parts[name].inputs[rows])
        assert part.names == theirs.parts[name].names
