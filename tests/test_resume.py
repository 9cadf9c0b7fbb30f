"""Stop at k, build everything anew, go on: the same bytes as a run that was never stopped."""

import io
import shutil
from pathlib import Path

import pytest
from harness import (
    BASE,
    CONFIGURATIONS,
    StopAt,
    fingerprints,
    make_data,
    request,
    run_through,
    run_with_stops,
    silent,
    tiny_pictures,
)

from goodfit.display import Display
from goodfit.errors import ConfigError, FileError, Interrupted
from goodfit.signals import StopSignals
from goodfit.workflows import Request, resume, train


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_stopped_run_ends_with_the_same_bytes(name: str, tmp_path: Path) -> None:
    settings = BASE | CONFIGURATIONS[name]
    data = make_data(name, tmp_path)
    expected = fingerprints(run_through(data, tmp_path / "through", settings))
    stopped = fingerprints(run_with_stops(data, tmp_path / "stopped", settings, stops=[2, 1, 5]))
    assert stopped == expected


@pytest.mark.parametrize("step", range(1, 23))  # 18 steps, 3 evaluations and the test ask
def test_any_moment_is_a_safe_place_to_stop(step: int, tmp_path: Path) -> None:
    data, settings = {"train": tiny_pictures()}, BASE | CONFIGURATIONS["everything"]
    expected = fingerprints(run_through(data, tmp_path / "through", settings))
    assert fingerprints(run_with_stops(data, tmp_path / "stopped", settings, stops=[step])) == expected


def test_a_run_resumes_from_step_0_when_no_checkpoint_was_written(tmp_path: Path) -> None:
    data = {"train": tiny_pictures()}
    expected = fingerprints(run_through(data, tmp_path / "through", BASE))
    run = run_through(data, tmp_path / "bare", BASE)
    for path in run.path.iterdir():
        if path.name not in ("config.toml", "environment.json", "checkpoints"):
            path.unlink()
    for path in run.checkpoints.rglob("manifest.json"):
        path.unlink()
    assert fingerprints(resume(run.path, silent(), StopSignals(), data=data)) == expected


def test_a_finished_run_takes_more_epochs(tmp_path: Path) -> None:
    data = {"train": tiny_pictures()}
    settings = BASE | {"schedule.name": "constant"}
    longer = fingerprints(run_through(data, tmp_path / "longer", settings | {"train.epochs": 5}))
    run_through(data, tmp_path / "run", settings)
    run = resume(tmp_path / "run", silent(), StopSignals(), data=data, epochs=5)
    assert run.config.train.epochs == 5
    assert fingerprints(run) == longer


def test_fewer_epochs_than_were_trained_are_refused(tmp_path: Path) -> None:
    data = {"train": tiny_pictures()}
    run = run_through(data, tmp_path / "run", BASE)
    with pytest.raises(ConfigError, match="already trained 3 epochs"):
        resume(run.path, silent(), StopSignals(), data=data, epochs=3)


def test_a_finished_run_is_left_as_it_is(tmp_path: Path) -> None:
    data = {"train": tiny_pictures()}
    run = run_through(data, tmp_path / "run", BASE)
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    resume(run.path, silent(), StopSignals(), data=data)
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="is not a run folder"):
        resume(tmp_path, silent(), StopSignals())


def test_a_run_that_goes_on_from_a_model_file_starts_from_it_again(tmp_path: Path) -> None:
    data = {"train": tiny_pictures()}
    start = tmp_path / "start.safetensors"
    run_through(data, tmp_path / "first", BASE | {"train.seed": 5}).save(start)
    settings = BASE | {"model.name": str(start)}
    expected = fingerprints(run_through(data, tmp_path / "through", settings))
    assert expected != fingerprints(run_through(data, tmp_path / "afresh", BASE))
    run = run_through(data, tmp_path / "run", settings)
    start.unlink()
    shutil.rmtree(run.checkpoints)
    (run.path / "metrics.jsonl").unlink()
    assert fingerprints(resume(run.path, silent(), StopSignals(), data=data)) == expected
    again = Request(data=data, config_file=run.path / "config.toml", out=tmp_path / "again")
    assert fingerprints(train(again, silent(), StopSignals())) == expected
    longer = resume(run.path, silent(), StopSignals(), data=data, epochs=4)
    assert longer.end is not None
    assert longer.end["epoch"] == 4


def test_a_second_process_on_a_run_folder_is_refused(tmp_path: Path) -> None:
    data = {"train": tiny_pictures()}
    run = run_through(data, tmp_path / "run", BASE)
    with run.locked(), pytest.raises(FileError, match=r"another process is training in '.*run'; wait for it to end"):
        resume(run.path, silent(), StopSignals(), data=data, epochs=4)
    assert resume(run.path, silent(), StopSignals(), data=data, epochs=4).end is not None


@pytest.mark.parametrize("stop", [5, 8, 11])
def test_the_training_loss_of_an_epoch_is_that_of_all_its_steps_after_a_resume_too(stop: int, tmp_path: Path) -> None:
    data = {"train": tiny_pictures()}
    settings = {"model.name": "mlp", "train.epochs": 3, "train.batch_size": 8, "train.threads": 1, "log.every_steps": 2}
    through, stopped, resumed = (io.StringIO() for _ in range(3))
    train(request(data, tmp_path / "through", settings), Display(through), StopSignals())
    with pytest.raises(Interrupted):
        train(request(data, tmp_path / "run", settings), Display(stopped), StopAt(stop))
    resume(tmp_path / "run", Display(resumed), StopSignals(), data=data)
    assert losses(stopped) | losses(resumed) == losses(through)
    assert len(losses(through)) == 3


def losses(stream: io.StringIO) -> dict[str, str]:
    """Return the training loss that is shown for each epoch."""
    rows = (line.split() for line in stream.getvalue().splitlines())
    return {row[0]: row[1] for row in rows if len(row) > 4 and row[0].isdigit() and "%" in row[3]}
