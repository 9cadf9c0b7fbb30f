"""Bad input: one line that names the thing and the next step, exit code 2, and nothing written."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from command import QUICK, TINY, Done, goodfit, listing, png_header, train, write_pictures, write_table
from harness import full_disk
from safetensors.torch import save_file

from goodfit.config import NOT_BUILT


def refused(*arguments: str | Path, names: tuple[str, ...]) -> Done:
    """Run a command that must be refused, naming each of `names`, and leave everything as it was."""
    cache = Path(os.environ["GOODFIT_CACHE"])  # what was decoded well may stay
    before = {name: content for name, content in listing(Path()).items() if Path(name).parts[0] != cache.name}
    done = goodfit(*arguments)
    after = {name: content for name, content in listing(Path()).items() if Path(name).parts[0] != cache.name}
    assert done.code == 2
    assert done.out == ""
    assert done.err.count("\n") == 1
    assert done.err.startswith("goodfit: ")
    for name in names:
        assert name in done.err
    assert after == before
    assert not list(cache.rglob("*.partial"))
    return done


# Of `train` on digits: what is given, and what the answer must name.
ARGUMENTS: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "a path that does not exist": (["photos/"], ("'photos/'", "goodfit datasets")),
    "an unknown data set": (["minst"], ("'minst'", "did you mean mnist?")),
    "an unknown data set under --json": (["minst", "--json"], ("'minst'", "did you mean mnist?")),
    "an unknown model": (["--model", "convnte"], ("model 'convnte'", "did you mean convnet?")),
    "an unknown optimiser": (["--optimizer", "adamx"], ("optimizer 'adamx'", "did you mean", "adam")),
    "an unknown schedule": (["--set", "schedule.name=cosin"], ("schedule 'cosin'", "did you mean cosine?")),
    "an unknown recipe": (["--recipe", "mnist-mpl"], ("recipe 'mnist-mpl'", "did you mean mnist-mlp?")),
    "an unknown key": (["--set", "train.epoch=3"], ("'train.epoch'", "did you mean train.epochs")),
    "an unknown section": (["--set", "trian.epochs=3"], ("'trian.epochs'", "did you mean train.epochs")),
    "an unknown argument of the model": (["--set", "model.widht=3"], ("widht", "did you mean width?")),
    "an unknown argument of the optimiser": (["--set", "optim.nestrov=true"], ("optim.nestrov", "did you mean")),
    "an unknown device": (["--device", "gpu"], ("'gpu'", "choose from: auto, cuda")),
    "an unknown flag": (["--epoch-count", "3"], ("--epoch-count", "goodfit train --help")),
    "a flag without its value": (["--lr"], ("--lr", "goodfit --help")),
    "a second data set": (["digits", "mnist"], ("mnist", "goodfit train --help")),
    "no epochs": (["--epochs", "0"], ("train.epochs = 0 (from --epochs)", "greater than or equal to 1")),
    "epochs in words": (["--epochs", "ten"], ("train.epochs = 'ten' (from --epochs)", "valid integer")),
    "part of an epoch": (["--epochs", "1.5"], ("train.epochs = 1.5 (from --epochs)", "valid integer")),
    "a learning rate of nan": (["--lr", "nan"], ("optim.lr = nan (from --lr)", "finite")),
    "a learning rate of infinity": (["--lr", "inf"], ("optim.lr = inf (from --lr)", "finite")),
    "a learning rate of zero": (["--lr", "0"], ("optim.lr = 0 (from --lr)", "greater than 0")),
    "a share above 1": (["--val", "1.5"], ("data.val = 1.5 (from --val)", "less than 1")),
    "a share below 0": (["--val", "-0.1"], ("data.val = -0.1 (from --val)", "greater than or equal to 0")),
    "a negative seed": (["--seed", "-1"], ("train.seed = -1 (from --seed)", "greater than or equal to 0")),
    "a batch of nothing": (["--batch-size", "0"], ("train.batch_size = 0", "greater than or equal to 1", "'full'")),
    "a negative batch": (["--batch-size", "-3"], ("train.batch_size = -3", "greater than or equal to 1")),
    "a batch in words": (["--batch-size", "half"], ("train.batch_size = 'half'", "'full'")),
    "a batch larger than the data": (["--batch-size", "5000"], ("5000", "1294", "--batch-size full")),
    "a setting without a value": (["--set", "foo"], ("--set 'foo'", "section.key=value")),
    "a setting without a key": (["--set", "=3"], ("--set '=3'", "section.key=value")),
    "a setting of the wrong type": (["--set", "augment.flip=perhaps"], ("augment.flip = 'perhaps' (from --set)", "boolean")),
    "a setting that is not offered": (["--set", "train.precision=fp8"], ("train.precision = 'fp8'", "'bf16'")),
    "fewer examples than classes": (["--set", "data.max_train=3"], ("data.max_train = 3", "10 classes")),
    "weights of too few classes": (["--set", "train.class_weights=[1,2]"], ("train.class_weights", "10 classes")),
    "a configuration that does not exist": (["--config", "none.toml"], ("'none.toml'", "RUN/config.toml")),
    "a folder as the configuration": (["--config", "folder"], ("'folder' is a folder", "folder/config.toml")),
    "a configuration that is not TOML": (["--config", "table.csv"], ("'table.csv' is not TOML", "line 1")),
    "a model file that does not exist": (["--model", "none.safetensors"], ("'none.safetensors'", "no model file")),
    "an output folder that is not empty": (["--out", "folder"], ("'folder' exists and is not empty", "--out")),
    "an output that is a file": (["--out", "table.csv"], ("'table.csv' exists and is a file", "--out")),
    "an output below a file": (["--out", "table.csv/run"], ("'table.csv/run'", "--out")),
    "an output with bytes that are no text": (["--out", "r\udce9n"], (r"r\udce9n", "UTF-8", "rename")),
    "a file of no known kind": (["notes.txt"], ("notes.txt' is not a kind of data", ".npz")),
    "one picture": (["picture.png"], ("picture.png' is not a kind of data", "folder of class folders")),
    "an empty folder": (["empty"], ("empty' holds no pictures", "one folder per class")),
    "a table without --target": (["table.csv"], ("table.csv needs --target", "x, label")),
    "a table without the target": (["table.csv", "--target", "lable"], ("target column 'lable'", "did you mean label?")),
    "a damaged .npz": (["bad.npz"], ("bad.npz' cannot be read", "numpy.savez")),
    "an .npz of other arrays": (["other.npz"], ("other.npz' has the arrays", "X and y")),
}


@pytest.mark.parametrize("case", ARGUMENTS)
def test_arguments(case: str, tmp_path: Path) -> None:
    arguments, names = ARGUMENTS[case]
    write_table(tmp_path / "table.csv", "x,label", "{i},{c}")
    Path("folder").mkdir()
    shutil.copy("table.csv", "folder/file")
    Path("empty").mkdir()
    Path("notes.txt").write_text("notes")
    Path("picture.png").write_bytes(png_header(8, 8))
    Path("bad.npz").write_bytes(b"PK nothing")
    np.savez("other.npz", a=np.ones(4), b=np.ones(4))
    epochs = [] if "--epochs" in arguments else ["--epochs", "1"]
    refused("train", *epochs, "--set", "train.threads=1", *arguments, names=names)


@pytest.mark.skipif(torch.cuda.is_available(), reason="cuda is here")
def test_a_device_that_is_not_here() -> None:
    refused("train", "--device", "cuda", names=("'cuda' is not on this machine", "leave --device out"))


@pytest.mark.parametrize("key", NOT_BUILT)
def test_what_is_not_built_is_refused_by_name(key: str) -> None:
    refused("train", "--set", f"{key}=1", names=(key, "not built yet"))


TABLES: dict[str, tuple[str, tuple[str, ...]]] = {
    "only missing targets": ("x,y\n1,\n2,NA\n3,NaN\n", ("target 'y' has only missing values", "another column")),
    "infinity in a column": ("x,y\n" + "1,a\n2,b\n" * 20 + "inf,a\n", ("t.csv:42", "column 'x' holds inf", "finite")),
    "infinity in the target": ("x,y\n" + "1,1.5\n2,2.5\n" * 20 + "3,inf\n", ("t.csv:42", "target is inf", "finite")),
    "one class": ("x,y\n" + "1,a\n2,a\n" * 20, ("one class 'a'", "add examples of another class")),
    "a class with one example": ("x,y\n" + "1,a\n2,a\n" * 20 + "3,b\n", ("the class 'b' has fewer than two", "add examples")),
    "the same number everywhere": ("x,y\n" + "1,2.5\n2,2.5\n" * 20, ("2.5", "choose another target")),
    "nothing": ("", ("t.csv is empty", "header line")),
    "only a header": ("x,y\n", ("t.csv has a header but no rows", "add rows")),
    "one row": ("x,y\n1,a\n", ("1 labelled row", "at least two")),
    "two columns of one name": ("x,x,y\n1,2,a\n3,4,b\n", ("2 columns named 'x'", "rename them")),
    "a row that is too long": ("x,y\n1,a\n2,b,c\n", ("t.csv:3", "3 fields", "mend it")),
    "a quote that stays open": ('x,y\n1,"a\n2,b\n', ("t.csv:2", "quote")),
    "bytes that are no text": ("x,y\n1,a\0\n", ("t.csv:2", "UTF-8")),
    "no column beside the target": ("y\n" + "a\nb\n" * 20, ("no column beside the target 'y'", "add columns")),
    "columns that are empty": ("x,y\n" + ",a\n,b\n" * 20, ("'x' is empty", "add columns")),
}


@pytest.mark.parametrize("case", TABLES)
def test_tables(case: str) -> None:
    text, names = TABLES[case]
    Path("t.csv").write_text(text, encoding="utf-8")
    refused("train", "t.csv", "--target", "y", *QUICK, names=names)


def test_missing_values_train() -> None:
    rows = [f"{['', 'NA', 'NaN', i][i % 4]},{['red', '', 'NA'][i % 3]},{'ab'[i % 2]}" for i in range(80)]
    Path("table with spaces.csv").write_text("\n".join(["size,colour,label", *rows, "1,red,"]) + "\n")
    done = train("table with spaces.csv", "--target", "label", *QUICK, "--json")
    assert "1 rows have no 'label' and are left out" in done.err


def test_class_folders(tmp_path: Path) -> None:
    write_pictures(tmp_path / "one", ("cat",))
    refused("train", "one", *QUICK, names=("one class 'cat'", "add examples of another class"))
    write_pictures(tmp_path / "rare")
    for picture in list((tmp_path / "rare/dog").iterdir())[1:]:
        picture.unlink()
    refused("train", "rare", *QUICK, names=("the class 'dog' has fewer than two examples", "add examples or remove"))
    write_pictures(tmp_path / "hollow")
    (tmp_path / "hollow/bird").mkdir()
    refused("train", "hollow", *QUICK, names=("hollow/bird", "holds no pictures", "fill or remove"))
    write_pictures(tmp_path / "split/train")
    write_pictures(tmp_path / "split/test", ("cat", "cow"))
    refused("train", "split", *QUICK, names=("disagree", "'dog'", "'cow'"))


def test_a_bad_picture_is_named_and_can_be_skipped(tmp_path: Path) -> None:
    write_pictures(tmp_path / "data")
    (tmp_path / "data/cat/1.png").write_bytes(b"no picture")
    refused("train", "data", *QUICK, names=("cat/1.png", "data.skip_bad=true goes on without it"))
    whole = (tmp_path / "data/dog/2.png").read_bytes()
    (tmp_path / "data/dog/2.png").write_bytes(whole[: len(whole) // 2])
    refused("train", "data", *QUICK, names=("cat/1.png", "1 more", "data.skip_bad=true goes on without them"))
    (tmp_path / "data/cat/1.png").write_bytes(whole)
    refused("train", "data", *QUICK, names=("dog/2.png", "data.skip_bad=true goes on without it"))
    done = train("data", "--model", "mlp", *QUICK, "--set", "data.skip_bad=true", "--json")
    assert "1 unreadable picture skipped, the first: dog/2.png" in done.err


def test_a_picture_of_200_megapixels_is_refused_by_its_header(tmp_path: Path) -> None:
    write_pictures(tmp_path / "data")
    (tmp_path / "data/cat/1.png").write_bytes(png_header(20_000, 10_000))
    refused("train", "data", *QUICK, names=("cat/1.png has 200 megapixels", "make it smaller"))
    train("digits", *TINY, "--out", "run")
    refused("predict", "run", "data/cat/1.png", names=("cat/1.png has 200 megapixels", "make it smaller"))


def test_model_files_of_others_and_damaged_ones(tmp_path: Path) -> None:
    train("digits", *TINY, "--out", "run")
    whole = Path("run/best.safetensors").read_bytes()
    Path("cut.safetensors").write_bytes(whole[: len(whole) // 2])
    Path("changed.safetensors").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    Path("empty.safetensors").touch()
    save_file({"weight": torch.ones(2)}, "foreign.safetensors")
    torch.save({"weight": torch.ones(2)}, "weights.pth")
    expected = {
        "foreign.safetensors": "was not made by goodfit",
        "weights.pth": "is not a model file",
        "empty.safetensors": "is not a model file",
        "run/config.toml": "is not a model file",
        "cut.safetensors": "damaged",
        "changed.safetensors": "damaged",
        "none.safetensors": "no model file",
        "cut": "no model file",
    }
    Path("one.png").write_bytes(png_header(8, 8))
    for name, why in expected.items():
        refused("predict", name, "one.png", names=(repr(name), why))
        refused("evaluate", name, "digits", names=(repr(name), why))
    refused("train", "digits", "--model", "foreign.safetensors", names=("'foreign.safetensors'", "not made by goodfit"))


def test_a_model_and_data_that_do_not_fit(tmp_path: Path) -> None:
    write_pictures(tmp_path / "pets")
    write_pictures(tmp_path / "farm", ("cat", "cow"))
    table = write_table(tmp_path / "table.csv", "x,label", "{i},{c}")
    train("pets", "--model", "mlp", *QUICK, "--out", "pictures")
    train(table, "--target", "label", *QUICK, "--out", "rows")
    shutil.copy("pictures/best.safetensors", "alone.safetensors")
    refused("evaluate", "pictures", "farm", names=("farm", "cow", "it knows cat, dog"))
    refused("evaluate", "alone.safetensors", names=("'alone.safetensors'", "evaluate MODEL DATA"))
    refused("evaluate", "pictures", "--split", "tset", names=("'tset'", "train, val, test"))
    refused("evaluate", "pictures", "nowhere", names=("'nowhere'",))
    refused("train", "digits", "--model", "alone.safetensors", *QUICK, names=("(3, 8, 8)", "(1, 8, 8)"))
    refused("predict", "rows", "pets/cat/0.png", names=("0.png' is a picture", ".csv"))
    refused("predict", "rows", "none.csv", names=("none.csv",))
    refused("predict", "pictures", "table.csv", names=("table.csv", "is a table"))
    refused("predict", "pictures", "none.png", names=("none.png", "does not exist"))
    refused("predict", "pictures", "*.gif", names=("'*.gif'", "check the pattern"))
    refused("predict", "pictures", "rows/checkpoints", names=("'rows/checkpoints' holds no pictures",))
    refused("predict", "pictures", names=("INPUT", "goodfit predict --help"))
    refused("predict", "pictures", "pets", "--top", "0", names=("--top", "goodfit predict --help"))


def test_runs_that_are_none_or_not_there_yet(tmp_path: Path) -> None:
    write_pictures(tmp_path / "data")
    train("digits", *TINY, "--out", "run")
    for name in ("data", "nowhere", "run/best.safetensors"):
        refused("resume", name, names=(repr(name), "is not a run folder", "goodfit runs"))
    refused("resume", names=("RUN", "goodfit resume --help"))
    refused("resume", "run", "--epochs", "0", names=("--epochs", "goodfit resume --help"))
    refused("runs", "nowhere", names=("'nowhere' is not a folder", "--out"))
    Path("begun").mkdir()
    for name in ("config.toml", "environment.json"):
        shutil.copy(f"run/{name}", "begun")
    refused("evaluate", "begun", names=("'begun' has no best.safetensors yet", "goodfit resume begun"))
    refused("predict", "begun", "data", names=("'begun' has no best.safetensors yet", "goodfit resume begun"))


def test_models_recipes_and_their_arguments() -> None:
    refused("models", "resnet81", names=("'resnet81'", "did you mean resnet18"))
    refused("models", "mlp", "--shape", "wide", names=("'wide'", "3,32,32"))
    refused("models", "mlp", "--classes", "0", names=("--classes", "goodfit models --help"))
    refused("recipes", "mnist-mpl", names=("'mnist-mpl'", "did you mean mnist-mlp?"))
    refused("trian", names=("'trian'", "train"))


def test_a_disk_that_is_full_before_the_first_step(tmp_path: Path) -> None:
    with full_disk(room=0):
        refused("train", *TINY, "--out", "runs/first", names=("'runs/first/config.toml'", "free space", "--out"))
        refused("train", *TINY, names=("'runs/digits-mlp-", "config.toml'", "free space"))
    write_pictures(tmp_path / "data")
    with full_disk(room=100):
        refused("train", "data", *QUICK, names=("decoded pictures", str(tmp_path / "cache"), "GOODFIT_CACHE"))
    train("data", "--model", "mlp", *QUICK)


def test_what_may_not_be_read_or_written(tmp_path: Path) -> None:
    table = write_table(tmp_path / "table.csv", "x,label", "{i},{c}")
    table.chmod(0)
    if os.access(table, os.R_OK):
        pytest.skip("this user may read everything")
    refused("train", table.name, "--target", "label", *QUICK, names=("table.csv", "Permission denied"))
    Path("locked").mkdir(mode=0o500)
    refused("train", *TINY, "--out", "locked/run", names=("'locked/run'", "Permission denied", "--out"))
