"""Every verb of the command line on real files and on hostile ones, under the audit hook of `fuzzing`.

    python tests/hostile_verbs.py FOLDER

Prints a line of JSON for each command line: the verb, its exit code, its error line, and what the hook caught. All of it is
done once before, unwatched, so that everything is imported. A process of its own, because a hook stays for good.
"""

import json
import os
import pickle
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from command import QUICK, goodfit, write_pictures, write_table
from fuzzing import Guard

WORKERS = ("--set", "data.processes=2")


class Attack:
    """What leaves a file behind where it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


def write_data(folder: Path) -> None:
    import polars as pl

    folder.mkdir()
    table = write_table(folder / "table.csv", "size,colour,y", "{i},{c},{c}")
    pl.read_csv(table).write_parquet(folder / "table.parquet")
    draws = np.random.default_rng(0)
    np.savez(folder / "arrays.npz", x=draws.random((40, 5), np.float32), y=np.arange(40) % 2)
    write_pictures(folder / "pictures", count=20)
    attack = np.array([Attack(folder / "run-by-npz")], object)
    np.savez(folder / "attack.npz", x=attack, y=np.arange(1))
    (folder / "attack.safetensors").write_bytes(pickle.dumps(Attack(folder / "run-by-model")))


def real_commands(folder: Path) -> Iterator[tuple[str | Path, ...]]:
    table, run = folder / "table.csv", folder / "run"
    yield "train", table, "--target", "y", "--out", run, *QUICK, "--set", "schedule.name=constant"  # else no program repeats it
    yield "train", folder / "table.parquet", "--target", "y", "--out", folder / "from parquet", *QUICK
    yield "train", folder / "arrays.npz", "--out", folder / "from npz", *QUICK
    yield "train", folder / "pictures", "--out", folder / "from pictures", "--model", "mlp", *QUICK, *WORKERS
    yield "train", table, "--target", "y", "--out", folder / "from model", *QUICK, "--model", run / "best.safetensors"
    yield "resume", run, "--epochs", "2"
    yield "resume", run, "--verify"
    yield "evaluate", run, table
    yield "predict", run, table
    yield "predict", folder / "from pictures" / "best.safetensors", folder / "pictures" / "cat" / "0.png"
    yield "export", run, "--format", "state-dict", "--out", folder / "weights.pth"
    yield "convert", folder / "weights.pth", "--model", "mlp", "--data", table, "--set", "data.target=y"
    for trained in (run, folder / "from pictures", folder / "from model"):
        yield "eject", trained
    yield "runs", folder
    for verb in ("datasets", "models", "recipes"):
        yield (verb,)


def hostile_commands(folder: Path) -> Iterator[tuple[str | Path, ...]]:
    """Command lines that name a pickle, or a run folder in which there is one in each place."""
    table, attack = folder / "table.csv", folder / "attack.safetensors"
    yield "train", folder / "attack.npz", "--out", folder / "x", *QUICK
    yield "train", table, "--target", "y", "--out", folder / "x", *QUICK, "--model", attack
    yield "predict", attack, table
    yield "evaluate", attack, table
    shutil.copy(attack, folder / "attack.pth")
    yield "export", attack, "--format", "state-dict"
    yield "eject", attack
    yield "convert", attack, "--model", "mlp", "--data", table, "--set", "data.target=y"
    yield "convert", folder / "attack.pth", "--model", "mlp", "--data", table, "--set", "data.target=y"
    files = {path.name: path for path in sorted((folder / "run").rglob("*")) if path.is_file()}
    for name, path in files.items():
        run = folder / f"attacked {name}"
        shutil.copytree(folder / "run", run)
        (run / path.relative_to(folder / "run")).write_bytes(pickle.dumps(Attack(folder / f"run-by-{name}")))
        yield "runs", run
        yield "evaluate", run, table
        yield "predict", run, table
        yield "eject", run
        yield "resume", run, "--verify"
        yield "resume", run, "--epochs", "3"


def main() -> None:
    """Run the command lines twice, the second time watched."""
    guard = Guard(may_write=True).install()
    for turn in ("unwatched", "watched"):
        folder = Path(sys.argv[1]) / turn
        write_data(folder)
        for commands in (real_commands, hostile_commands):
            for arguments in commands(folder):
                guard.is_on, guard.caught = turn == "watched", []
                done = goodfit(*arguments)
                guard.is_on = False
                if turn == "watched":
                    print(json.dumps([commands is hostile_commands, arguments[0], done.code, done.err[-500:], guard.caught]))
        print(json.dumps([path.name for path in folder.glob("run-by*")]))


if __name__ == "__main__":
    main()
