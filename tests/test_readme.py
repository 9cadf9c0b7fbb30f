"""The README's commands and Python run as they stand, on data that are at hand."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from command import QUICK, goodfit, train, write_pictures, write_table
from PIL import Image
from torchvision.models import get_model_weights, resnet18

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
STANDS_FOR = {"mnist": "digits", "RUN": "runs/mine"}  # what a reader would put there, and what is here


def commands() -> list[list[str]]:
    """Return the goodfit commands of the README's consoles, without `goodfit` itself."""
    lines = "\n".join(re.findall(r"```console\n(.*?)```", README, re.DOTALL)).splitlines()
    words = [shlex.split(line.rpartition("&& ")[2].partition(" > ")[0], comments=True) for line in lines]
    return [line[1:] for line in words if line[:1] == ["goodfit"]]


def test_the_python_of_the_readme_runs(tmp_path: Path) -> None:
    snippets = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert snippets
    for snippet in snippets:
        exec(compile(snippet, "README.md", "exec"), {})
    assert (tmp_path / "digits.safetensors").exists()
    assert len(list(tmp_path.glob("runs/digits-mlp-*/best.safetensors"))) == 1


@pytest.fixture
def _at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the files that the README speaks of, and weights that lie where they are fetched to."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    weights = tmp_path / "home" / "hub" / "checkpoints" / Path(get_model_weights("resnet18").DEFAULT.url).name
    weights.parent.mkdir(parents=True)
    torch.save(resnet18().state_dict(), weights)
    shutil.copy(write_pictures(tmp_path / "photos") / "dog" / "0.png", "picture.png")
    Image.open("picture.png").save("picture.jpg")
    write_table(tmp_path / "adult.csv", "age,work,income", "{i},{c},{c}")
    train("photos", *QUICK, "--out", "runs/mine")


@pytest.mark.usefixtures("_at_hand")
def test_the_commands_of_the_readme_run() -> None:
    found = commands()
    assert [] not in found
    assert {arguments[0] for arguments in found} == {"train", "resume", "evaluate", "predict", "runs", "eject", "export"}
    for arguments in found:
        given = [STANDS_FOR.get(word, word) for word in arguments]
        done = goodfit(*given, *(QUICK if given[0] == "train" else ()))
        assert (done.code, done.err) == (0, ""), f"goodfit {shlex.join(arguments)}: {done.err}"
