"""Ranks started by torchrun: one voice, the same batches as one process, and every example counted once."""

import json
from pathlib import Path
from typing import Any

import pytest
from command import goodfit, torchrun, train

from goodfit.artefacts.run import Run

SETTINGS = ("--epochs", "2", "--set", "train.threads=1", "--set", "train.precision=fp32")


def records(run: str, event: str) -> list[dict[str, Any]]:
    return [line for line in Run(Path(run)).metrics if line["event"] == event]


@pytest.fixture
def _one_process() -> None:
    train("digits", "--model", "mlp", *SETTINGS, "--out", "one")


@pytest.mark.usefixtures("_one_process")
def test_two_ranks_train_as_one_process_does() -> None:
    done = torchrun("train", "digits", "--model", "mlp", *SETTINGS, "--out", "two", "--json")
    assert done.code == 0, done.err
    assert list(done.json) == ["run", "model", "steps", "epochs", "seconds", "test", "val"]
    assert done.err.count("\ntrained   2 epochs") == 1
    assert "2 ranks" in done.err
    one, two = Run(Path("one")), Run(Path("two"))
    assert one.test is not None
    assert done.json["steps"] == one.summary()["steps"]
    # Equal batches: the losses of the steps are those of one process but for the order of the sums.
    losses = [[line["loss"] for line in records(run, "train")] for run in ("one", "two")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert [result["n"] for result in done.json["test"]["per_class"]] == [result.n for result in one.test.per_class]
    assert sum(map(sum, done.json["test"]["confusion"])) == done.json["test"]["n"] == one.test.n == 359
    assert done.json["test"]["accuracy"] == pytest.approx(one.test.accuracy, abs=0.02)
    assert two.test_uses == 1
    # What two ranks made is a run like any other.
    again = goodfit("evaluate", "two", "--json").json
    assert again["confusion"] == done.json["test"]["confusion"]
    assert again["loss"] == pytest.approx(done.json["test"]["loss"], rel=1e-4)
    assert json.loads(goodfit("resume", "two", "--epochs", "3", "--json").out)["epochs"] == 3


def test_ranks_refuse_bad_input_with_one_voice(tmp_path: Path) -> None:
    done = torchrun("train", "nowhere", "--set", "train.threads=1")
    assert done.code == 1  # torchrun's own, whatever the ranks said
    assert done.out == ""
    assert done.err.count("goodfit: ") == 1
    assert "goodfit: no data set and no path is called 'nowhere'" in done.err
    assert "[rank" not in done.err  # no rank's traceback
    assert list(tmp_path.iterdir()) == []
