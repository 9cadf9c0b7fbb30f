"""Mutate real files of every kind that goodfit reads, and read them: each must load, or be refused in one line.

    python benchmarks/fuzz.py [--files 10000] [--loader NAME ...] [--seed N] [--first N]

Every loader has a process of its own, which is started again behind a file that kills it. A file must not run code, take
more than a second, or take more memory than twice its size and 64 MB. `--first` goes on behind an earlier campaign.
"""

import argparse
import json
import os
import resource
import signal
import sys
import tempfile
from collections import Counter
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import torch
import torchvision  # noqa: F401  (that no file's reader has to import it)
from fuzzing import LOADERS, Guard, Outcome, campaign

with suppress(ImportError):
    import timm  # noqa: F401  (likewise)

PATIENCE = 20  # seconds for one file, after which its process is killed
ROOM = 8 << 30  # bytes that a process may take beyond what it has: a file must not take the machine with it


def run_child(name: str, seed: int, numbers: range, pipe: int) -> None:
    """Read files in this process and report each one as it is begun and ended."""
    torch.set_num_threads(1)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + ROOM, taken + ROOM))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libraries speak of damage on stderr
    with tempfile.TemporaryDirectory(prefix="goodfit-fuzz-") as folder:
        for outcome in campaign(name, seed, numbers, Path(folder), Guard().install()):
            signal.alarm(PATIENCE)
            os.write(pipe, json.dumps(asdict(outcome)).encode() + b"\n")


def run_campaign(name: str, seed: int, numbers: range) -> list[Outcome]:
    """Return what became of each file, with a process for all of them as long as it lives."""
    outcomes: list[Outcome] = []
    while len(outcomes) < len(numbers):
        reading, writing = os.pipe()
        process = os.fork()
        if not process:
            os.close(reading)
            status = 1
            try:
                run_child(name, seed, numbers[len(outcomes) :], writing)
                status = 0
            finally:
                os._exit(status)
        os.close(writing)
        with os.fdopen(reading) as lines:
            outcomes += [Outcome(**json.loads(line)) for line in lines]
        _, status = os.waitpid(process, 0)
        if os.waitstatus_to_exitcode(status) > 0:
            raise SystemExit(f"the campaign of {name} itself failed at file {numbers[len(outcomes)]}")
        if len(outcomes) < len(numbers):
            number = signal.Signals(-os.waitstatus_to_exitcode(status)).name
            outcomes.append(Outcome(numbers[len(outcomes)], "crash", 0.0, 0, number))
    return outcomes


def report(name: str, outcomes: list[Outcome]) -> None:
    """Print a line of the table, and on stderr the first files of each thing that went wrong."""
    counts = Counter(outcome.verdict for outcome in outcomes)
    slowest = max(outcome.milliseconds for outcome in outcomes)
    largest = max(outcome.grown for outcome in outcomes) / (1 << 20)
    other = ", ".join(f"{verdict} {count}" for verdict, count in counts.items() if verdict not in KNOWN) or "-"
    cells = [name, len(outcomes), counts["refused"], counts["loaded"], counts["crash"], f"{slowest:.0f}", f"{largest:.0f}"]
    print("|", " | ".join(map(str, [*cells, counts["code run"], other])), "|", flush=True)
    shown: Counter[str] = Counter()
    for outcome in outcomes:
        kind = outcome.verdict + outcome.detail[:60]
        shown[kind] += 1
        if outcome.verdict not in ("refused", "loaded") and shown[kind] <= 2 and sum(shown.values()) < 20_000:
            print(
                f"  {name} {outcome.number}: {outcome.verdict}, {outcome.milliseconds:.0f} ms: {outcome.detail}",
                file=sys.stderr,
            )


KNOWN = ("refused", "loaded", "crash", "code run")


def main() -> None:
    """Run the campaigns and print a table; exit 1 if anything went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--loader", nargs="+", choices=[*LOADERS], default=[*LOADERS])
    options = parser.parse_args()
    print(
        "| loader | files | refused | loaded | crashes | slowest ms | most MB | code run | other |\n|---|"
        + "---:|" * 7
        + "---|"
    )
    failed = False
    for name in options.loader:
        outcomes = run_campaign(name, options.seed, range(options.first, options.first + options.files))
        report(name, outcomes)
        failed |= any(outcome.verdict not in ("refused", "loaded") for outcome in outcomes)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
