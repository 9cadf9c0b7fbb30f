"""Test-time augmentation: the views that training showed, their mean, and that it never takes the plain result's place."""

from pathlib import Path

import numpy as np
import pytest
import torch
from command import goodfit
from harness import run_through, tiny_pictures

from goodfit.artefacts.model_file import ModelFile
from goodfit.artefacts.run import Run
from goodfit.errors import ConfigError
from goodfit.evaluation.metrics import ClassificationEvaluation
from goodfit.evaluation.views import with_views
from goodfit.testing import evaluate_model

SETTINGS = {"model.name": "convnet", "train.epochs": 2, "train.batch_size": 16, "train.threads": 1, "train.precision": "fp32"}
BOTH = {"augment.flip": True, "augment.crop": 1}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("views")
    inputs, targets = tiny_pictures(80)
    np.savez(folder / "pictures.npz", X=inputs, y=targets)
    return run_through(None, folder / "run", SETTINGS | BOTH | {"data.name": str(folder / "pictures.npz")})


def shifted(stored: torch.Tensor, by: int) -> torch.Tensor:
    """Shifted down and right by `by`, by numpy."""
    padded = np.pad(stored.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)), mode="reflect")
    high, wide = stored.shape[-2:]
    return torch.from_numpy(padded[..., 1 - by : 1 - by + high, 1 - by : 1 - by + wide].copy())


def test_the_probabilities_are_the_means_over_six_views(run: Run) -> None:
    model = ModelFile.load(run.model).trained_model(torch.device("cpu"), None)
    stored = torch.from_numpy(tiny_pictures(20, seed=5)[0])
    viewed = with_views(model, BOTH)
    plain = [shifted(stored, by) for by in (0, 1, -1)]
    wanted = torch.stack([model.probabilities(view) for each in plain for view in (each, each.flip(-1))]).mean(0)
    torch.testing.assert_close(viewed.probabilities(stored), wanted)
    assert not torch.allclose(viewed.probabilities(stored), model.probabilities(stored))


@pytest.mark.parametrize(("given", "count"), [({"augment.flip": "alternating"}, 2), ({"augment.crop": 2}, 3), (BOTH, 6)])
def test_only_what_training_showed_is_a_view(run: Run, given: dict[str, object], count: int) -> None:
    model = ModelFile.load(run.model).trained_model(torch.device("cpu"), None)
    assert len(list(with_views(model, given).views(torch.from_numpy(tiny_pictures(4)[0])))) == count


def test_the_plain_result_stays_and_the_test_is_used_once(run: Run) -> None:
    before = run.test_uses
    plain = evaluate_model(run.path, None)
    both = evaluate_model(run.path, None, tta=True)
    assert isinstance(both, ClassificationEvaluation)
    assert isinstance(plain, ClassificationEvaluation)
    assert both.tta is not None
    assert plain.tta is None
    assert both.to_json() | {"tta": None} == plain.to_json() | {"tta": None}
    assert (both.tta.n, both.tta.split) == (plain.n, plain.split)
    assert both.tta.loss != plain.loss
    assert ClassificationEvaluation.from_json(both.to_json()) == both
    assert run.test_uses == before + 2


def test_the_command_shows_both(run: Run) -> None:
    shown = goodfit("evaluate", run.path, "--tta").out
    assert [line.split()[0] for line in shown.splitlines() if "95% interval" in line] == ["test", "with"], shown
    found = goodfit("evaluate", run.path, "--tta", "--json").json
    assert found["tta"]["n"] == found["n"]
    assert "tta" not in found["tta"]
    assert "tta" not in goodfit("evaluate", run.path, "--json").json


def test_a_model_that_saw_one_view_is_refused_before_anything_is_counted(tmp_path: Path) -> None:
    data = tmp_path / "pictures.npz"
    inputs, targets = tiny_pictures(80)
    np.savez(data, X=inputs, y=targets)
    unchanged = {"augment.crop": 0, "augment.flip": False}
    plain = run_through(None, tmp_path / "run", SETTINGS | unchanged | {"data.name": str(data)})
    uses = plain.test_uses
    with pytest.raises(ConfigError, match="neither flipped nor shifted"):
        evaluate_model(plain.path, None, tta=True)
    assert plain.test_uses == uses


def test_tables_have_no_views(tmp_path: Path) -> None:
    table = tmp_path / "table.npz"
    np.savez(table, X=np.random.default_rng(0).normal(size=(60, 4)).astype("float32"), y=np.arange(60) % 2)
    run = run_through(None, tmp_path / "run", SETTINGS | {"model.name": "mlp", "data.name": str(table)})
    with pytest.raises(ConfigError, match="does not tell pictures apart"):
        evaluate_model(run.path, None, tta=True)
