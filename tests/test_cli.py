"""The command line as a person and other programs use it: each verb, its text, its JSON, and where values come from."""

import io
import json
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command import QUICK, TINY, goodfit, train, write_pictures, write_table

from goodfit.artefacts.model_file import ModelFile
from goodfit.config import Config

VERBS = ["train", "resume", "evaluate", "predict", "convert", "export", "runs", "datasets", "models", "recipes", "eject"]
NOT_BUILT = ["check", "report", "serve", "sweep"]

RUN_KEYS = ["run", "model", "steps", "epochs", "seconds", "test", "val"]
CLASSIFICATION_KEYS = ["split", "n", "loss", "accuracy", "accuracy_ci95", "ece", "per_class", "confusion"]
CLASS_KEYS = ["class", "n", "accuracy", "precision", "recall", "f1"]
REGRESSION_KEYS = ["split", "n", "loss", "mae", "rmse", "r2"]


def check_classification(evaluation: dict[str, Any], split: str, classes: list[str]) -> None:
    assert list(evaluation) == CLASSIFICATION_KEYS
    assert evaluation["split"] == split
    assert [list(result) for result in evaluation["per_class"]] == [CLASS_KEYS] * len(classes)
    assert [result["class"] for result in evaluation["per_class"]] == classes
    assert [sum(row) for row in evaluation["confusion"]] == [result["n"] for result in evaluation["per_class"]]
    right = sum(row[index] for index, row in enumerate(evaluation["confusion"]))
    assert evaluation["accuracy"] == pytest.approx(right / evaluation["n"])
    low, high = evaluation["accuracy_ci95"]
    assert 0 <= low <= evaluation["accuracy"] <= high <= 1


def standard_input(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


def test_the_help_lists_what_is_built_and_nothing_else() -> None:
    done = goodfit("--help")
    assert done.code == 0
    commands = done.out[done.out.index("Commands") :]
    assert all(f"│ {verb} " in commands for verb in VERBS)
    assert not any(f"│ {verb} " in commands for verb in NOT_BUILT)
    for verb in VERBS:
        assert goodfit(verb, "--help").code == 0


def test_no_command_shows_the_help() -> None:
    done = goodfit()
    assert done.code == 2
    assert "Usage: goodfit" in done.out + done.err
    assert "goodfit: " not in done.err


@pytest.mark.parametrize("verb", NOT_BUILT)
def test_what_is_not_built_is_no_command(verb: str) -> None:
    done = goodfit(verb, "x")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"goodfit: No such command '{verb}'")
    assert done.err.endswith("; see goodfit --help\n")


def test_training_without_a_word_makes_a_run_folder(tmp_path: Path) -> None:
    done = train(*QUICK)
    (run,) = (tmp_path / "runs").iterdir()
    assert run.name.startswith("digits-convnet-")
    names = {path.name.split(".")[0] if path.name.startswith("events") else path.name for path in run.iterdir()}
    assert names == {
        "config.toml",
        "environment.json",
        "metrics.jsonl",
        "test_uses.jsonl",
        "checkpoints",
        "best.safetensors",
        "last.safetensors",
        "events",
    }
    assert done.err == ""
    end = done.out[done.out.index("\ntrained ") :]
    assert "test      accuracy" in end
    assert "95% interval" in end
    assert f"run       runs/{run.name}\nmodel     runs/{run.name}/best.safetensors\n" in end
    assert f"goodfit predict runs/{run.name} INPUT...\n" in end


def test_train_json(tmp_path: Path) -> None:
    done = train("digits", *TINY, "--out", "run", "--json")
    assert list(done.json) == RUN_KEYS
    assert (done.json["run"], done.json["model"], done.json["epochs"]) == ("run", "run/best.safetensors", 1)
    assert done.json["steps"] == json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[-1])["step"]
    digits = [str(digit) for digit in range(10)]
    check_classification(done.json["test"], "test", digits)
    check_classification(done.json["val"], "val", digits)
    assert "test      accuracy" not in done.out
    assert "trained   1 epoch" in done.err
    without = train("digits", *TINY, "--val", "0", "--json")
    assert without.json["val"] is None
    assert without.json["test"]["n"] == done.json["test"]["n"] == 359


def test_resume_and_its_json() -> None:
    first = train("digits", *TINY, "--out", "run", "--json")
    again = goodfit("resume", "run", "--json")
    assert again.json == first.json
    assert "has finished" in again.err
    assert "--epochs N" in again.err
    more = goodfit("resume", "run", "--epochs", "3", "--json")
    assert list(more.json) == RUN_KEYS
    assert (more.json["epochs"], more.json["steps"]) == (3, 3 * first.json["steps"])
    text = goodfit("resume", "run", "--epochs", "4")
    assert f"resuming from step {more.json['steps']}\n" in text.out
    assert (text.code, text.err) == (0, "")


def test_evaluate_gives_what_training_gave() -> None:
    trained = train("digits", *TINY, "--out", "run", "--json")
    for model, data in (("run", []), ("run/best.safetensors", []), ("run", ["digits"])):
        done = goodfit("evaluate", model, *data, "--json")
        assert (done.code, done.json, done.err) == (0, trained.json["test"], "")
    assert goodfit("evaluate", "run", "--split", "val", "--json").json == trained.json["val"]
    text = goodfit("evaluate", "run")
    assert f"accuracy {trained.json['test']['accuracy']:.1%} of 359" in text.out
    assert "taken for that of a column" in text.out


def test_regression_json(tmp_path: Path) -> None:
    table = write_table(tmp_path / "t.csv", "x,z,y", "{i},{c},{half}")
    trained = train(table, "--target", "y", *QUICK, "--out", "run", "--json").json
    assert (list(trained), list(trained["test"]), list(trained["val"])) == (RUN_KEYS, REGRESSION_KEYS, REGRESSION_KEYS)
    assert goodfit("evaluate", "run", "--json").json == trained["test"]
    predicted = goodfit("predict", "run", table, "--json").lines
    assert [list(line) for line in predicted] == [["input", "value"]] * 60
    assert isinstance(predicted[0]["value"], float)
    assert "rmse" in goodfit("evaluate", "run").out


def test_classes_are_matched_by_name_whatever_their_order_and_number(tmp_path: Path) -> None:
    data = write_pictures(tmp_path / "data", ("ant", "bee", "cow"))
    train(data, "--model", "mlp", *QUICK, "--out", "run")
    whole = goodfit("evaluate", "run/last.safetensors", write_pictures(tmp_path / "whole", ("cow", "ant", "bee")), "--json")
    check_classification(whole.json, "all", ["ant", "bee", "cow"])
    assert [result["n"] for result in whole.json["per_class"]] == [6, 6, 6]
    part = goodfit("evaluate", "run", write_pictures(tmp_path / "part", ("cow",), count=1), "--json")
    assert [result["n"] for result in part.json["per_class"]] == [0, 0, 1]


def test_predict_pictures_by_name_folder_and_pattern(tmp_path: Path) -> None:
    write_pictures(tmp_path / "data", count=3)
    train("data", "--model", "mlp", *QUICK, "--out", "run")
    done = goodfit("predict", "run", "data/cat/1.png", "data/dog", "data/*/2.png", "--json")
    names = ["data/cat/1.png", "data/dog/0.png", "data/dog/1.png", "data/dog/2.png", "data/cat/2.png", "data/dog/2.png"]
    assert [line["input"] for line in done.lines] == names
    assert (done.code, done.err) == (0, "")
    for line in done.lines:
        assert list(line) == ["input", "label", "probability", "top"]
        assert [list(item) for item in line["top"]] == [["label", "probability"]] * 2
        assert line["top"][0] == {"label": line["label"], "probability": line["probability"]}
        assert sum(item["probability"] for item in line["top"]) == pytest.approx(1)
    assert len(goodfit("predict", "run", "data/cat/1.png", "--top", "1", "--json").json["top"]) == 1
    assert goodfit("predict", "run", "data/cat/1.png").out.split()[0] == "data/cat/1.png"


def test_predict_writes_a_figure_and_says_so_beside_the_json(tmp_path: Path) -> None:
    write_pictures(tmp_path / "data")
    train("data", *TINY, "--out", "run")
    done = goodfit("predict", "run", "data/cat", "--plot", "cats.png", "--json")
    assert (done.code, len(done.lines)) == (0, 6)
    assert done.err.splitlines()[-1] == "wrote cats.png: 6 pictures"
    assert Path("cats.png").read_bytes().startswith(b"\x89PNG")
    assert goodfit("predict", "run", "data/dog/1.png", "--plot", "dog.svg").out.endswith("wrote dog.svg: 1 picture\n")
    refused = goodfit("predict", "run", "data/cat", "--plot", "cats.gif")
    assert (refused.code, refused.out) == (2, "")
    assert refused.err == "goodfit: --plot 'cats.gif' ends in no known suffix; choose from: .png, .pdf, .svg\n"


def test_predict_the_rows_of_a_table_by_line(tmp_path: Path) -> None:
    table = write_table(tmp_path / "t.csv", "x,y,label", "{i},{half},{c}")
    train(table, "--target", "label", *QUICK, "--out", "run")
    lines = goodfit("predict", "run", table, "--json").lines
    assert [line["input"] for line in lines] == [f"t.csv:{number}" for number in range(2, 62)]
    assert lines[5]["input"] == "t.csv:7"


def test_predict_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pictures(tmp_path / "data")
    train("data", "--model", "mlp", *QUICK, "--out", "pictures")
    standard_input(monkeypatch, (tmp_path / "data/dog/3.png").read_bytes())
    piped = goodfit("predict", "pictures", "-", "--json").json
    assert piped == goodfit("predict", "pictures", "data/dog/3.png", "--json").json | {"input": "-"}
    train(write_table(tmp_path / "t.csv", "x,label", "{i},{c}"), "--target", "label", *QUICK, "--out", "rows")
    standard_input(monkeypatch, b"x\n1\n2\n")
    assert [line["input"] for line in goodfit("predict", "rows", "-", "--json").lines] == ["-:2", "-:3"]


def test_one_bad_input_among_many_is_said_and_the_rest_predicted(tmp_path: Path) -> None:
    write_pictures(tmp_path / "data")
    train("data", "--model", "mlp", *QUICK, "--out", "pictures")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    done = goodfit("predict", "pictures", "data/cat/0.png", "bad.png", "absent.png", "data/dog/0.png", "--json")
    assert done.code == 2
    assert [line["input"] for line in done.lines] == ["data/cat/0.png", "bad.png", "absent.png", "data/dog/0.png"]
    assert [list(line) for line in done.lines[1:3]] == [["input", "error"]] * 2
    assert "bad.png" in done.lines[1]["error"]
    assert all("label" in done.lines[index] for index in (0, 3))
    train(write_table(tmp_path / "t.csv", "x,label", "{i},{c}"), "--target", "label", *QUICK, "--out", "rows")
    (tmp_path / "new.csv").write_text("x\n1\ninf\n3\n")
    rows = goodfit("predict", "rows", "new.csv", "--json")
    assert (rows.code, [list(line)[1] for line in rows.lines]) == (2, ["label", "error", "label"])
    assert rows.lines[1]["input"] == "new.csv:3"


def test_a_table_that_cannot_be_read_among_many_is_said_too(tmp_path: Path) -> None:
    table = write_table(tmp_path / "t.csv", "x,label", "{i},{c}")
    train(table, "--target", "label", *QUICK, "--out", "rows")
    done = goodfit("predict", "rows", "absent.csv", table, "--json")
    assert done.code == 2
    assert list(done.lines[0]) == ["input", "error"]
    assert [line["input"] for line in done.lines] == ["absent.csv", *(f"t.csv:{number}" for number in range(2, 62))]


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_names_of_any_characters_go_through_json(tmp_path: Path, encoding: str) -> None:
    data = write_pictures(tmp_path / "data", ("chat noir", "日本", "caf\udce9"), count=4)
    train(data, "--model", "mlp", *QUICK, "--out", "rün ☃")
    evaluated = goodfit("evaluate", "rün ☃", "--json", encoding=encoding)
    assert [result["class"] for result in evaluated.json["per_class"]] == ["caf\udce9", "chat noir", "日本"]
    predicted = goodfit("predict", "rün ☃", "data", "--json", encoding=encoding)
    assert predicted.lines[-1]["input"] == "data/日本/3.png"
    assert "data/caf\udce9/0.png" in [line["input"] for line in predicted.lines]
    assert goodfit("predict", "rün ☃", "data", encoding=encoding).code == 0
    assert goodfit("runs", ".", encoding=encoding).code == 0


def test_dry_run_shows_each_value_and_its_source_and_writes_nothing(tmp_path: Path) -> None:
    Path("mine.toml").write_text("[train]\nepochs = 7\nbatch_size = 50\nseed = 3\n[optim]\nweight_decay = 0.25\n")
    command = ["train", "digits", "--recipe", "small-pictures", "--config", "mine.toml", "--dry-run"]
    given = ["--epochs", "2", "--lr", "1e-2", "--set", "train.batch_size=16", "--set", "train.threads=1"]
    before = sorted(tmp_path.iterdir())
    shown = goodfit(*command, *given, "--json").json
    assert sorted(tmp_path.iterdir()) == before
    assert list(shown) == ["configuration", "sources"]
    assert shown["configuration"].keys() == shown["sources"].keys() >= Config().flat().keys()
    expected = {
        "train.early_stopping": (0, "default"),
        "optim.momentum": (0.6, "recipe small-pictures"),
        "train.seed": (3, "mine.toml"),
        "optim.weight_decay": (0.25, "mine.toml"),  # over the recipe
        "train.epochs": (2, "--epochs"),  # over the file
        "optim.lr": (0.01, "--lr"),  # over the recipe
        "train.batch_size": (16, "--set"),  # over the file
        "data.name": ("digits", "DATA"),
    }
    assert {key: (shown["configuration"][key], shown["sources"][key]) for key in expected} == expected
    text = goodfit(*command, *given)
    assert (text.code, text.err) == (0, "")
    assert "nothing was started" in text.out
    lines = [line.split() for line in text.out.splitlines()]
    assert ["epochs", "2", "--epochs"] in lines
    assert ["seed", "3", "mine.toml"] in lines
    assert sorted(tmp_path.iterdir()) == before


def test_a_later_flag_wins_over_an_earlier_one() -> None:
    done = goodfit("train", "--dry-run", "--json", "--set", "train.epochs=3", "--set", "train.epochs=4", "--epochs", "5")
    assert done.json["configuration"]["train.epochs"] == 4


def test_the_configuration_of_a_run_repeats_it(tmp_path: Path) -> None:
    train("digits", *TINY, "--seed", "5", "--set", "train.label_smoothing=0.1", "--out", "first")
    train("--config", "first/config.toml", "--out", "second")
    for name in ("best.safetensors", "last.safetensors"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
    first, second = (tomllib.loads((tmp_path / run / "config.toml").read_text()) for run in ("first", "second"))
    assert first == second
    train("--config", "first/config.toml", "--seed", "6", "--out", "third")
    assert (tmp_path / "first/last.safetensors").read_bytes() != (tmp_path / "third/last.safetensors").read_bytes()


def test_training_goes_on_from_a_model_file() -> None:
    before = train("digits", *TINY, "--out", "first", "--json").json
    after = train("digits", *TINY[2:], "--model", "first/best.safetensors", "--out", "second", "--json").json
    assert after["val"]["loss"] < before["val"]["loss"]


def test_a_relative_path_is_kept_whole_in_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pictures(tmp_path / "data")
    train("data", "--model", "mlp", *QUICK, "--out", "run")
    monkeypatch.chdir(tmp_path / "data")
    assert goodfit("evaluate", "../run", "--json").code == 0
    assert goodfit("resume", "../run", "--epochs", "2", "--json").code == 0


def test_runs_of_the_same_data_are_compared_by_validation() -> None:
    train("digits", *TINY, "--out", "runs/better")
    train(write_pictures(Path("photos")), "--model", "mlp", *QUICK, "--out", "runs/other")
    train("digits", *TINY, "--out", "runs/worse", "--lr", "1e-7")
    for name, test in (("better", 0.1), ("worse", 0.9)):  # were it by test, their order would be another
        path = Path("runs") / name / "best.safetensors"
        file = ModelFile.load(path)
        assert file.test
        replace(file, test=file.test | {"accuracy": test}).save(path)
    printed = goodfit("runs").out
    assert printed.index("runs/better") < printed.index("runs/worse") < printed.index("runs/other")


def test_the_catalogues() -> None:
    datasets = goodfit("datasets")
    assert all(name in datasets.out for name in ("digits", "mnist", "cifar10"))
    models = goodfit("models")
    assert all(name in models.out for name in ("mlp", "lenet", "cifar10-quick", "convnet", "resnet18", "sequential"))
    summary = goodfit("models", "lenet", "--shape", "1,28,28", "--classes", "7")
    assert "parameters" in summary.out
    needy = goodfit("models", "sequential")
    assert "It needs model.layers" in needy.out
    recipes = goodfit("recipes")
    assert all(name in recipes.out for name in ("auto", "mnist-mlp", "cifar10-lenet", "cifar10-quick"))
    assert "evidence" in goodfit("recipes", "mnist-mlp").out
    assert goodfit("--version").out.startswith("goodfit ")
    for done in (datasets, models, summary, needy, recipes):
        assert (done.code, done.err) == (0, "")


def test_a_network_is_given_as_layers() -> None:
    options = ("--model", "sequential", "--set", "data.max_train=200", *QUICK)
    missing = goodfit("train", "digits", *options, "--out", "run")
    assert missing.code == 2
    assert len(missing.err.strip().splitlines()) == 1
    example = missing.err[missing.err.index("[{") : missing.err.rindex("}]") + 2]
    train("digits", *options, "--out", "run", "--set", f"model.layers={example}")
    assert goodfit("evaluate", "run", "--json").code == 0


@pytest.mark.data
def test_the_real_digits_are_learned_evaluated_and_predicted(real_data: Path, tmp_path: Path) -> None:
    few = ("--set", "data.max_train=3000", "--epochs", "3", "--set", "train.threads=1")
    done = train("mnist", "--data-root", str(real_data), *few, "--out", "run", "--json").json
    assert done["test"]["n"] == 10_000
    assert done["test"]["accuracy"] > 0.95
    evaluated = goodfit("evaluate", "run", "--data-root", str(real_data), "--json").json
    assert evaluated == done["test"]
    other = goodfit("evaluate", "run", "fashion-mnist", "--data-root", str(real_data), "--json")
    assert other.code == 2
    assert "classes" in other.err
