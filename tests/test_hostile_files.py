"""A seeded sample of `benchmarks/fuzz.py`, the campaign on hostile files; and that what it watches for would be seen."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from fuzzing import LOADERS, Guard, Mutations, mutate, mutate_json, read_one
from hostile_samples import BATCH, Mutant, load_cifar

from goodfit.errors import FileError

HERE = Path(__file__).parent
PROGRAM = """
import json, sys
from dataclasses import asdict
from pathlib import Path
import torch, torchvision
from contextlib import suppress
with suppress(ImportError):  # an extra
    import timm
from fuzzing import LOADERS, Guard, campaign
torch.set_num_threads(1)
guard = Guard().install()
for name in LOADERS:
    count = 4 if name == "table .parquet" else 25
    for outcome in campaign(name, 1, range(count), Path(sys.argv[1]) / name, guard):
        print(json.dumps([name, asdict(outcome)]))
"""


def test_mutated_files_load_or_are_refused_in_one_line(tmp_path: Path) -> None:
    for name in LOADERS:
        (tmp_path / name).mkdir()
    # In a process of its own: an audit hook stays for good.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr[-2000:]
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    assert {name for name, _ in outcomes} == set(LOADERS)
    wrong = [(name, outcome) for name, outcome in outcomes if outcome["verdict"] not in ("refused", "loaded", "slow")]
    assert not wrong  # how long a file takes is measured by the campaign, on a machine at rest
    for name in LOADERS:
        assert any(outcome["verdict"] != "loaded" for found, outcome in outcomes if found == name), name


@pytest.mark.parametrize("name", sorted(LOADERS))
def test_a_mutant_is_made_again_from_its_number(name: str, tmp_path: Path) -> None:
    loader = LOADERS[name]
    sample = loader.samples(tmp_path)[0]
    first, again, other = (loader.mutant(random.Random(seed), sample, Mutations()) for seed in (1, 1, 2))
    assert first == again
    assert first != other or first.files == sample


def test_what_a_campaign_looks_for_is_found(tmp_path: Path) -> None:
    guard = Guard()
    sys.addaudithook(lambda event, arguments: guard.is_on and guard._see(event, arguments))
    files = Mutant({"file": b"content"})

    def say_much() -> None:
        raise FileError("one line\nand another")

    def end() -> None:
        raise ZeroDivisionError

    assert read_one(0, lambda: None, files, guard).verdict == "loaded"
    assert read_one(0, lambda: None, Mutant({}, must_be_refused=True), guard).verdict == "damage not noticed"
    assert read_one(0, say_much, files, guard).verdict == "more than a line"
    assert read_one(0, end, files, guard).verdict == "foreign error"
    for deed in (
        lambda: exec("1"),
        lambda: os.system("true"),
        lambda: subprocess.run(["true"], check=False),
        lambda: (tmp_path / "written").write_text("x"),
        lambda: __import__("antigravity_of_another_planet"),
    ):
        assert read_one(0, deed, files, guard).verdict == "code run"
    grown: list[bytes] = []
    if Path("/proc/self/clear_refs").exists():
        assert read_one(0, lambda: grown.append(b"x" * (100 << 20)), files, guard).verdict == "large"


def test_a_pickle_in_place_of_a_batch_runs_nothing(tmp_path: Path) -> None:
    path = tmp_path / BATCH
    path.parent.mkdir()
    path.write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path / "run").encode() + b"'\ntR.")
    with pytest.raises(Exception, match="it asks for 'os' 'system'"):
        load_cifar(tmp_path)
    assert not (tmp_path / "run").exists()


def test_wounds_change_files_and_need_no_content() -> None:
    chance = random.Random(0)
    changed = [mutate(chance, b"some content of a file") for _ in range(100)]
    assert len(set(changed)) > 80
    assert all(isinstance(mutate(chance, b""), bytes) for _ in range(100))
    assert any(mutate_json(chance, {"a": [1, {"b": 2}]}) != {"a": [1, {"b": 2}]} for _ in range(10))
