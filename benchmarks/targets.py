"""Measure what `goodfit` reaches from the command line: test accuracy over seeds, seconds from Enter to prompt, peak memory.

    python benchmarks/targets.py --data-root DIR --cifar FOLDER [--only NAME ...] [--seeds 5]

Each row is a real process, started in an empty folder, one after the other. The seeds are 0, 1, 2 ..., which no recipe was
tuned with. `--data-root` holds MNIST and FashionMNIST in torchvision's layout, `--cifar` CIFAR-10 as train/ and test/ class
folders of pictures. Prints a Markdown table.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MEGABYTE = 1 << 20
GOODFIT = ["-m", "goodfit"]


@dataclass(frozen=True)
class Measured:
    """One process: what it printed, its wall time, and the most memory that it held."""

    output: str
    seconds: float
    peak: int  # bytes

    @property
    def result(self) -> dict[str, Any]:
        """The JSON on the last line."""
        return json.loads(self.output.splitlines()[-1])


@dataclass(frozen=True)
class Row:
    """One line of the table: `goodfit train ...`, and what it is to reach."""

    name: str
    arguments: Callable[[argparse.Namespace, Path], list[str]]
    target: str


def _breast_cancer(_: argparse.Namespace, folder: Path) -> list[str]:
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    lines = [",".join([*(name.replace(" ", "_") for name in data.feature_names), "diagnosis"])]
    lines += [
        ",".join([*map(repr, map(float, row)), data.target_names[target]])
        for row, target in zip(data.data, data.target, strict=True)
    ]
    path = folder / "breast_cancer.csv"
    path.write_text("\n".join(lines) + "\n")
    return ["train", str(path), "--target", "diagnosis"]


def _adult(_: argparse.Namespace, folder: Path) -> list[str]:
    """Write people as the adult-census set has them; who earns more follows from them with some luck (about 87% at best)."""
    draw = random.Random(0)
    schools = {"HS-grad": 9, "Some-college": 10, "Bachelors": 13, "Masters": 14, "11th": 7}
    jobs = {"Sales": 0, "Craft-repair": -0.3, "Exec-managerial": 0.9, "Other-service": -1.0, "Prof-specialty": 0.6}
    lines = ["age,workclass,education,education_num,occupation,married,hired,capital_gain,hours_per_week,income"]
    for _ in range(8000):
        age, school, job, married = (
            draw.randint(17, 80),
            draw.choice(list(schools)),
            draw.choice(list(jobs)),
            draw.random() < 0.5,
        )
        hours, gain = min(99, max(5, round(draw.gauss(40, 12)))), draw.choice([0] * 9 + [draw.randint(500, 20_000)])
        score = 0.35 * (schools[school] - 10) + jobs[job] + (1.6 if married else -0.6) + 0.04 * (hours - 40) + gain / 6000
        score += 0.03 * (min(age, 55) - 40) - 1.3 + draw.gauss(0, 0.7)
        cells = [age, draw.choice(["Private", "State-gov", "?"]), school, schools[school], job, str(married).lower()]
        cells += [f"{draw.randint(1990, 2020)}-{draw.randint(1, 12):02}-{draw.randint(1, 28):02}", gain, hours]
        cells = ["" if draw.random() < 0.03 else cell for cell in cells]
        lines.append(",".join(map(str, [*cells, ">50K" if score > 0 else "<=50K"])))
    path = folder / "adult.csv"
    path.write_text("\n".join(lines) + "\n")
    return ["train", str(path), "--target", "income"]


def _named(*arguments: str) -> Callable[[argparse.Namespace, Path], list[str]]:
    return lambda options, _: ["train", *arguments, "--data-root", str(options.data_root)]


ROWS = [
    Row("digits", lambda *_: ["train"], "98% in 10 s"),
    Row("mnist", _named("mnist"), "99.3% in 45 s; 700 MB above import torch"),
    Row("mnist fast", _named("mnist", "--recipe", "fast"), "99.4% in 14 s of training"),
    Row("fashion-mnist", _named("fashion-mnist"), "92% in 120 s"),
    Row("fashion-mnist 7", _named("fashion-mnist", "--epochs", "7"), "92.5% in 90 s of training"),
    Row("fashion-mnist best", _named("fashion-mnist", "--recipe", "best"), "93.5% in 108 s of training"),
    Row("mnist-mlp", _named("--recipe", "mnist-mlp"), "90.6% within 1"),
    Row("cifar10-quick", lambda options, _: ["train", str(options.cifar), "--recipe", "cifar10-quick"], "57.5% within 2"),
    Row("cifar10-lenet", lambda options, _: ["train", str(options.cifar), "--recipe", "cifar10-lenet"], "54.0% within 2"),
    Row("cifar10 fast", lambda options, _: ["train", str(options.cifar), "--recipe", "fast"], "86%"),
    Row("breast cancer", _breast_cancer, "95%"),
    Row("adult-style table", _adult, "trains without a hint"),
]


def measure(arguments: list[str], folder: Path) -> Measured:
    """Run one `goodfit` in `folder`; wait for it and it alone, so that the memory is its own."""
    command = [sys.executable, *arguments]
    started = time.perf_counter()
    with (folder / "output.txt").open("w") as output, (folder / "errors.txt").open("w") as errors:
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=errors, env=_environment(folder))
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - started
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}:\n{(folder / 'errors.txt').read_text()}")
    return Measured((folder / "output.txt").read_text(), seconds, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024))


def _environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "GOODFIT_CACHE": str(folder.parent / "cache")}


def measure_row(row: Row, options: argparse.Namespace, scratch: Path, torch_alone: int) -> str:
    """Train with each seed and return the table's line."""
    arguments = row.arguments(options, scratch)
    accuracies, runs = [], []
    for seed in range(options.seeds):
        folder = scratch / f"{row.name.replace(' ', '-')}-{seed}"
        folder.mkdir()
        runs.append(measure([*GOODFIT, *arguments, "--seed", str(seed), "--out", "run", "--json"], folder))
        accuracies.append(100 * runs[-1].result["test"]["accuracy"])
        print(f"{row.name}, seed {seed}: {accuracies[-1]:.2f}%, {runs[-1].seconds:.1f} s", file=sys.stderr)
    spread = statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0
    seconds = [run.seconds for run in runs]
    training = statistics.median(run.result["seconds"] for run in runs)
    peak = (max(run.peak for run in runs) - torch_alone) / MEGABYTE
    return (
        f"| `goodfit {_shown(arguments, options, scratch)}` | {statistics.mean(accuracies):.2f}% ± {spread:.2f} | "
        f"{statistics.median(seconds):.1f} s ({min(seconds):.1f} to {max(seconds):.1f}) | {training:.1f} s | {peak:.0f} MB | "
        f"{row.target} |"
    )


def _shown(arguments: list[str], options: argparse.Namespace, scratch: Path) -> str:
    """Return the command without this machine's paths."""
    text = " ".join(arguments).replace(f" --data-root {options.data_root}", "")
    return text.replace(str(options.cifar), "cifar10-images/").replace(f"{scratch}/", "")


def measure_others(scratch: Path) -> list[str]:
    """Time what is not training: the help, and the prediction of one picture."""
    from PIL import Image
    from sklearn.datasets import load_digits

    folder = scratch / "others"
    folder.mkdir()
    measure([*GOODFIT, "train", "--epochs", "1", "--out", "run"], folder)
    Image.fromarray((load_digits().images[0] * 15.9).astype("uint8")).save(folder / "digit.png")
    lines = []
    for arguments, target in ((["--help"], "0.3 s"), (["predict", "run", "digit.png"], "3 s")):
        times = [measure([*GOODFIT, *arguments], folder).seconds for _ in range(5)]
        lines.append(
            f"| `goodfit {' '.join(arguments)}` | | {statistics.median(times):.2f} s ({min(times):.2f} to {max(times):.2f}) "
            f"| | | {target} |"
        )
    return lines


def main() -> None:
    """Measure the rows that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument("--cifar", type=Path, default=Path("cifar10-images"))
    parser.add_argument("--only", nargs="*", choices=[*(row.name for row in ROWS), "others"])
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    options.data_root, options.cifar = options.data_root.resolve(), options.cifar.resolve()
    wanted = options.only or [*(row.name for row in ROWS), "others"]
    with tempfile.TemporaryDirectory(prefix="goodfit-targets-") as name:
        scratch = Path(name)
        torch_alone = measure(["-c", "import torch"], scratch).peak
        lines = [measure_row(row, options, scratch, torch_alone) for row in ROWS if row.name in wanted]
        lines += measure_others(scratch) if "others" in wanted else []
    print(f"| command | test accuracy, {options.seeds} seeds | Enter to prompt | training | peak above import torch | target |")
    print("| --- | --- | --- | --- | --- | --- |")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
