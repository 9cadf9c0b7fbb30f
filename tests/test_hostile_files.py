"""A seeded sample of `benchmarks/fuzz.py`, the campaign on hostile files; and that what it watches for would be seen."""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fuzzing import LIMIT_SECONDS, LOADERS, Guard, Mutations, mutate, mutate_json, read_one
from hostile_samples import BATCH, Files, Mutant, load_cifar, signed_checkpoint, signed_manifest

from goodfit.artefacts.model_file import ModelFile
from goodfit.data.table import read_rows
from goodfit.errors import DataError, FileError

HERE = Path(__file__).parent
VERBS = {"convert", "export", "eject", "train", "resume", "evaluate", "predict", "runs", "datasets", "models", "recipes"}
PROGRAM = """
import json, sys
from dataclasses import asdict
from pathlib import Path
import torch, torchvision
from contextlib import suppress
with suppress(ImportError):  # an extra
    import timm
from fuzzing import LIMIT_SECONDS, LOADERS, Guard, campaign
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


def test_no_verb_runs_what_files_hold(tmp_path: Path) -> None:
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path]),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    command = [sys.executable, str(HERE / "hostile_verbs.py"), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr[-2000:]
    unwatched, *lines, watched = map(json.loads, done.stdout.splitlines())
    assert unwatched == watched == []  # no pickle left its mark
    assert {verb for _, verb, *_ in lines} == VERBS
    for is_hostile, verb, code, message, caught in lines:
        assert not caught, (verb, caught)
        assert code in ((0, 1, 2) if is_hostile else (0,)), (verb, code, message)  # 1: what a replay found
        assert message.count("\n") == (code == 2), (verb, message)
    assert sum(code == 2 for is_hostile, _, code, *_ in lines if is_hostile) >= 10


@pytest.mark.parametrize("name", sorted(LOADERS))
def test_a_mutant_is_made_again_from_its_number(name: str, tmp_path: Path) -> None:
    loader = LOADERS[name]
    sample = loader.samples(tmp_path)[0]
    first, again, other = (loader.mutant(random.Random(seed), sample, Mutations()) for seed in (1, 1, 2))
    assert first == again
    assert first != other or first.files == sample


def test_a_mutant_does_not_depend_on_those_made_before() -> None:
    def make() -> str:
        chance = random.Random(3)
        return json.dumps([mutate_json(chance, {"a": [1, 2], "b": {"c": 3}}) for _ in range(300)])

    assert make() == make()


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


MANY = "[" + "[]," * 2_000_000 + "0]"
SHAPE = b'{"t":{"dtype":"U8","data_offsets":[0,1],"shape":[' + b"1," * 6_000_000 + b"1]}}"
GREEDY = {  # what takes many times its size when read as JSON
    "lists": MANY,
    "numbers": "[" + "1.5," * 4_000_000 + "0]",
    "texts": "[" + '"ab",' * 4_000_000 + "0]",
    "names": "{" + ",".join(f'"{number}":0' for number in range(700_000)) + "}",
    "depth": "[" * 4_000_000,
    "wide characters": '"\N{PILE OF POO}' + "x" * 20_000_000 + '"',
}


def table(text: bytes) -> bytes:
    return len(text).to_bytes(8, "little") + text + b"\0"


def read_greedy(load: Callable[[], object], files: Files) -> str:
    started = time.process_time()  # whatever else this machine does
    outcome = read_one(0, load, Mutant(files), Guard())
    assert time.process_time() - started < LIMIT_SECONDS
    return "refused" if outcome.verdict == "slow" else outcome.verdict + outcome.detail


@pytest.mark.parametrize("what", [*GREEDY, "shape", "a long header"])
def test_a_checkpoint_takes_no_more_memory_than_its_size_allows(what: str, tmp_path: Path) -> None:
    loader = LOADERS["checkpoint"]
    whole = loader.samples(tmp_path)[0]
    name, content = "state.safetensors", table(SHAPE if what == "shape" else SHAPE + b" " * (16 << 20))
    if what in GREEDY:
        values = json.loads(whole["step-7/state.json"]) | {"best": "here"}
        name, content = "state.json", json.dumps(values).replace('"here"', GREEDY[what]).encode()
    files = signed_checkpoint(whole, name, content)
    for file, data in files.items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_bytes(data)
    assert read_greedy(lambda: loader.load(tmp_path), files).startswith("refused")


@pytest.mark.parametrize("what", [*GREEDY, "shape", "a greedy document", "a long header"])
def test_a_model_file_takes_no_more_memory_than_its_size_allows(what: str, tmp_path: Path) -> None:
    text = GREEDY[what].encode() if what in GREEDY else SHAPE
    if what == "a greedy document":
        text = json.dumps({"__metadata__": {"goodfit": MANY}}).encode()
    elif what == "a long header":
        text = b" " * (17 << 20) + text
    files = {"model.safetensors": table(text)}
    (tmp_path / "model.safetensors").write_bytes(files["model.safetensors"])
    loader = LOADERS["model file"]
    assert read_greedy(lambda: loader.load(tmp_path), files).startswith("refused")


def test_what_a_file_says_is_cut_in_the_message(tmp_path: Path) -> None:
    LOADERS["checkpoint"].samples(tmp_path)
    path = tmp_path / "sample" / "step-7" / "manifest.json"
    manifest = json.loads(path.read_bytes())
    for wrong in ({"format": "x" * 10_000}, {"step": [1] * 10_000}):
        path.write_bytes(signed_manifest(manifest | wrong))
        with pytest.raises(FileError) as raised:
            LOADERS["checkpoint"].load(tmp_path / "sample")
        assert len(str(raised.value)) < 300
    (tmp_path / "model.safetensors").write_bytes(LOADERS["model file"].samples(tmp_path)[0]["model.safetensors"])
    file = ModelFile.load(tmp_path / "model.safetensors")
    added = {"a" * 10_000: torch.zeros((1,) * 60), "added": torch.zeros((1,) * 60)}
    for name, tensor in added.items():
        with pytest.raises(FileError, match="do not fit the architecture") as raised:
            replace(file, tensors=file.tensors | {name: tensor}).module()
        assert len(str(raised.value)) < 350


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


def test_a_parquet_file_that_ends_polars_ends_in_exit_2(tmp_path: Path) -> None:
    import polars as pl

    path = tmp_path / "table.parquet"
    frame = pl.DataFrame({"size": [row / 7 for row in range(60)], "y": [row % 2 for row in range(60)]})
    frame.write_parquet(path, compression="uncompressed")
    # The number of values in a page, 60 in thrift's notation, becomes -61: polars asks for that many and aborts.
    page, damaged = b"\x2c\x15\x78", b"\x2c\x15\x79"
    assert page in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(page, damaged, 1))
    command = [sys.executable, "-m", "goodfit", "train", path, "--target", "y", "--out", tmp_path / "run"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # of its own: it could take this one with it
    assert done.returncode == 2, done.stderr[-2000:]
    assert done.stderr.startswith("goodfit: table.parquet cannot be read as a parquet file: it is damaged")
    assert done.stderr.count("\n") == 1


def test_a_reader_that_is_killed_is_a_damaged_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import polars as pl

    path = tmp_path / "table.parquet"
    pl.DataFrame({"size": [1.0, 2.0], "y": [0, 1]}).write_parquet(path)
    read_rows(path)
    monkeypatch.setattr("goodfit.data.table.PROOF", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    with pytest.raises(DataError, match=r"table\.parquet cannot be read as a parquet file: it is damaged; write it again"):
        read_rows(path)
