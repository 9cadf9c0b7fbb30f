import os
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from goodfit.data.cache import cache_directory
from goodfit.data.folder import find_pictures, read_folder
from goodfit.data.image_transform import ImageTransform
from goodfit.errors import DataError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("GOODFIT_CACHE", str(tmp_path_factory.mktemp("cache")))


def put(path, value=0, size=(8, 6), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode in ("L", "1") else (value,) * 3).save(path)


def put_classes(folder, classes=("cat", "dog"), count=3, **options):
    for place, name in enumerate(classes):
        for number in range(count):
            put(folder / name / f"{number}.png", 10 * place + number, **options)


def test_class_folders_are_classes(tmp_path):
    put_classes(tmp_path)
    raw = read_folder(tmp_path)
    assert (raw.name, raw.task, raw.classes, raw.notes) == (tmp_path.name, "classification", ("cat", "dog"), ())
    (part,) = raw.parts.values()
    assert part.names == ["cat/0.png", "cat/1.png", "cat/2.png", "dog/0.png", "dog/1.png", "dog/2.png"]
    assert (part.targets.dtype, part.targets.tolist()) == (torch.int64, [0, 0, 0, 1, 1, 1])
    assert (part.inputs.dtype, part.inputs.shape) == (torch.uint8, (6, 3, 6, 8))
    assert part.inputs[:, 0, 0, 0].tolist() == [0, 1, 2, 10, 11, 12]
    transform = raw.fit(part.inputs, torch.arange(6))
    assert transform.encode(part.inputs) is part.inputs
    assert torch.equal(transform.encode([tmp_path / name for name in part.names]), part.inputs)


@pytest.mark.parametrize("val", ["val", "valid", "Validation"])
def test_split_folders_are_splits(tmp_path, val):
    for number, split in enumerate(("train", val, "test")):
        put_classes(tmp_path / split, count=number + 1)
    raw = read_folder(tmp_path)
    assert {name: len(part.targets) for name, part in raw.parts.items()} == {"train": 2, "val": 4, "test": 6}
    assert list(raw.parts) == ["train", "val", "test"]
    assert raw.parts["val"].names == [f"{val}/{name}" for name in ("cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png")]
    assert raw.parts["test"].inputs[:, 0, 0, 0].tolist() == [0, 1, 2, 10, 11, 12]


def test_train_may_be_a_class(tmp_path):
    put_classes(tmp_path, ["bus", "car", "train"])
    assert read_folder(tmp_path).classes == ("bus", "car", "train")


def test_files_anywhere_below_a_class_count_and_odd_names_are_names(tmp_path):
    put_classes(tmp_path)
    put(tmp_path / "cat" / "ü ñ" / "b" / "猫 #1%.JPG")
    put(tmp_path / "cat" / "line\nbreak.png")
    put(tmp_path / "cat" / os.fsdecode(b"latin\xff.png"))
    (tmp_path / "köter").symlink_to(tmp_path / "dog")
    raw = read_folder(tmp_path)
    assert raw.classes == ("cat", "dog", "köter")
    assert raw.parts["train"].names[3:6] == ["cat/latin\udcff.png", "cat/line\nbreak.png", "cat/ü ñ/b/猫 #1%.JPG"]
    assert find_pictures(tmp_path / "cat")[-1] == tmp_path / "cat" / "ü ñ" / "b" / "猫 #1%.JPG"


def test_what_is_no_picture_is_left_out_and_said(tmp_path):
    put_classes(tmp_path)
    for hidden in ("cat/.DS_Store", "cat/Thumbs.db", "dog/desktop.ini", "cat/._1.png", ".ignored/3.png", "__MACOSX/cat/1.png"):
        (tmp_path / hidden).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / hidden).write_bytes(b"clutter")
    (tmp_path / "cat" / "labels.TXT").touch()
    (tmp_path / "dog" / "a.txt").touch()
    (tmp_path / "dog" / "LICENSE").touch()
    os.mkfifo(tmp_path / "dog" / "pipe.png")
    put(tmp_path / "loose.png")
    raw = read_folder(tmp_path)
    assert len(raw.parts["train"].names) == 6
    assert raw.notes == ("left out: .txt files (2), files without a suffix (1), pictures outside the class folders (1)",)


def test_folders_beside_the_splits_are_left_out_and_said(tmp_path):
    for split in ("train", "test", "unlabelled"):
        put_classes(tmp_path / split)
    raw = read_folder(tmp_path)
    assert list(raw.parts) == ["train", "test"]
    assert raw.notes == ("left out: pictures in unlabelled, which is no split (6)",)


def nothing(folder):
    pass


def loose_pictures(folder):
    put(folder / "1.png")
    put(folder / "2.png")


def empty_class(folder):
    put_classes(folder)
    (folder / "fox").mkdir()


def one_class(folder):
    put_classes(folder, ["cat"])


def one_example(folder):
    put_classes(folder)
    put(folder / "fox" / "1.png")


def one_training_example(folder):
    put_classes(folder / "train", count=1)
    put_classes(folder / "test")


def one_level_too_high(folder):
    put_classes(folder / "photos")


def test_alone(folder):
    put_classes(folder / "test")


def splits_disagree(folder):
    put_classes(folder / "train", ["cat", "dog"])
    put_classes(folder / "test", ["cat", "wolf"])


def two_validations(folder):
    for split in ("train", "val", "valid"):
        put_classes(folder / split)


def pictures_in_a_split(folder):
    put_classes(folder / "train")
    put(folder / "test" / "1.png")


def endless(folder):
    put_classes(folder)
    (folder / "cat" / "again").symlink_to(folder / "cat")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (nothing, "holds no pictures .JPEG, PNG.*; put them in one folder per class"),
        (loose_pictures, "holds 2 pictures but no class folders; put them in one folder per class"),
        (empty_class, "the class folder '.*fox' holds no pictures .*; fill or remove it"),
        (one_class, "'cat'"),
        (one_example, "'fox'"),
        (one_training_example, "'cat', 'dog'"),
        (one_level_too_high, "holds one folder only; perhaps the class folders are in '.*photos'"),
        (test_alone, "has test but no train folder"),
        (splits_disagree, "disagree: test has no 'dog' and train has no 'wolf'"),
        (two_validations, "has a split twice: train, val, valid"),
        (pictures_in_a_split, "test' holds 1 picture but no class folders"),
        (endless, "again' is a link to a folder that it lies in"),
    ],
)
def test_a_folder_that_cannot_be_learned_from_is_one_clear_line(tmp_path, build, message):
    build(tmp_path)
    with pytest.raises(DataError, match=message) as caught:
        read_folder(tmp_path)
    assert "\n" not in str(caught.value)


test_alone.__test__ = False  # a builder


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match="nowhere' cannot be read: No such file"):
        read_folder(tmp_path / "nowhere")


def spoil(folder):
    put_classes(folder)
    (folder / "cat" / "7.png").write_bytes(b"no picture")
    (folder / "dog" / "0.png").write_bytes((folder / "dog" / "1.png").read_bytes()[:50])
    (folder / "dog" / "gone.png").symlink_to("nowhere.png")


def test_the_first_bad_picture_is_an_error(tmp_path):
    spoil(tmp_path)
    for _ in range(2):  # and again when it is known from the first time
        with pytest.raises(
            DataError, match=r"^cat/7\.png is damaged.*2 more cannot .*; --set data\.skip_bad=true goes on without them"
        ):
            read_folder(tmp_path)


def test_bad_pictures_are_skipped_on_request(tmp_path):
    spoil(tmp_path)
    for _ in range(2):
        raw = read_folder(tmp_path, skip_bad=True)
        part = raw.parts["train"]
        assert raw.notes == ("3 unreadable pictures skipped, the first: cat/7.png",)
        assert part.names == ["cat/0.png", "cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png"]
        assert part.targets.tolist() == [0, 0, 0, 1, 1]
        assert part.inputs[:, 0, 0, 0].tolist() == [0, 1, 2, 11, 12]


def test_an_odd_name_keeps_the_message_on_one_line(tmp_path):
    put_classes(tmp_path)
    (tmp_path / "cat" / os.fsdecode(b"a\n\xff.png")).touch()
    with pytest.raises(DataError, match=r"^'cat/a\\n\\udcff\.png' is damaged"):
        read_folder(tmp_path)
    assert read_folder(tmp_path, skip_bad=True).notes == (r"1 unreadable picture skipped, the first: 'cat/a\n\udcff.png'",)


def test_skipping_may_not_leave_a_class_or_a_split_empty(tmp_path):
    for split in ("train", "test"):
        put_classes(tmp_path / split, count=2)
    shutil.copytree(tmp_path, copy := tmp_path.with_name("copy"))
    (tmp_path / "train" / "cat" / "0.png").write_bytes(b"")
    with pytest.raises(DataError, match="'cat'"):
        read_folder(tmp_path, skip_bad=True)
    for picture in find_pictures(copy / "test"):
        picture.write_bytes(b"")
    with pytest.raises(DataError, match=r"no picture of test in '.*copy' can be read"):
        read_folder(copy, skip_bad=True)


def test_a_folder_of_bad_pictures_is_an_error_even_when_they_are_skipped(tmp_path):
    for name in ("cat/1.jpg", "cat/2.jpg", "dog/1.jpg", "dog/2.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(DataError, match=r"none of the 4 pictures .* can be read; the first: cat/1\.jpg"):
        read_folder(tmp_path, skip_bad=True)


def test_the_form_and_the_class_order_of_a_trained_model_are_taken(tmp_path):
    put_classes(tmp_path / "test", ["dog"], count=1, size=(30, 30))
    transform = ImageTransform("L", 5, 9, (0.5,), (0.5,))
    raw = read_folder(tmp_path, transform=transform)
    assert (list(raw.parts), raw.classes) == (["test"], ("dog",))
    assert torch.equal(raw.parts["test"].inputs, transform.encode([tmp_path / "test" / "dog" / "0.png"]))


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks into /proc")
def test_pixels_are_mapped_and_not_read(tmp_path):
    put_classes(tmp_path)
    inputs = read_folder(tmp_path).parts["train"].inputs
    (file,) = cache_directory().iterdir()
    lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if str(file) in line]
    assert [line[1] for line in lines] == ["r--s"]
    assert int(lines[0][0].split("-")[0], 16) <= inputs.data_ptr() < int(lines[0][0].split("-")[1], 16)
