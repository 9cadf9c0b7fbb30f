"""Kill and stop real runs at random moments, resume them until they finish, and compare them with runs that nobody stopped.

    python benchmarks/kill.py --runs 100 [--state FILE.json] [--seed N] [--trial N]

Each trial trains one of the runs of struck_runs.py and strikes it, up to three times, with SIGKILL, a stop signal or two Ctrl-C, each time at a
random moment of the process's life; then it lets the run finish. The running total is kept in the state file, and the next call
goes on from there. A trial that fails leaves its folder and says how to repeat it. The processes are forked from this one, which
has imported torch but neither computed with it nor started a thread; every tenth trial begins with `python -m goodfit`.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from struck_runs import CASES, Case, command, look, session, write_data

PATIENCE = 60.0  # seconds until a process counts as hung
COLD_EVERY, COLD_SECONDS = 10, 7.0  # trials; what a process takes to start here
ORPHAN_SECONDS = 15.0  # torch's own workers look every 5 s whether the process that reads is still there
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
FAULTS = ("corrupt", "hung", "different", "wrong code", "leftovers")
# What children would otherwise each import; polars, which starts threads when it is imported, they do.
IMPORTS = ("torch._dynamo", "goodfit.workflows", "goodfit.cli.main", "goodfit.cli.output", "sklearn.preprocessing", "PIL.Image")
TENSORBOARD = ("tensorboard.summary.writer.record_writer", "tensorboard.compat.proto.event_pb2")


@dataclass
class Total:
    """What the campaign has done so far, as kept in the state file."""

    seed: int = 0
    trials: int = 0
    kills: int = 0
    signals: int = 0
    second_signals: int = 0
    cold_starts: int = 0
    struck_training: int = 0  # strikes at a process whose run folder was there
    faults: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FAULTS, 0))

    def markdown(self) -> str:
        """Return a line of a table."""
        done = (self.trials, self.kills, self.signals, self.second_signals, self.struck_training, self.cold_starts)
        return "| " + " | ".join(map(str, [*done, *(self.faults[name] for name in FAULTS)])) + " |"

    @staticmethod
    def heading() -> str:
        """Return the table's head."""
        names = ["trials", "SIGKILLs", "signals", "second Ctrl-C", "strikes while a run was there", "cold starts", *FAULTS]
        return "| " + " | ".join(names) + " |\n" + "| --- " * len(names) + "|"


class FoundError(Exception):
    """A fault that a trial found: its kind, and what is wrong."""

    def __init__(self, kind: str, what: str) -> None:
        super().__init__(f"{kind}: {what}")
        self.kind = kind


def fork(work: Callable[[], int], folder: Path, log: Path) -> int:
    """Do `work` in a child that leads its own process group, and return its id; what it says goes to `log`."""
    assert len(threading.enumerate()) == 1
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        os.setpgid(0, 0)
        for number in STOPS:
            signal.signal(number, signal.SIG_DFL)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.environ["GOODFIT_CACHE"] = str(folder / "cache")
        code = work()
    except BaseException:  # noqa: BLE001  a child must never return into its parent's code
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def replaced(arguments: list[str]) -> int:
    """Become a new process of goodfit."""
    os.execv(sys.executable, [sys.executable, "-m", "goodfit", *arguments])


def ended(child: int, seconds: float) -> int | None:
    """Wait for a child and return its exit code, -n for signal n; None if it has not ended after `seconds`."""
    until = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= until:
            return None
        time.sleep(min(0.002, max(0.0, until - time.monotonic())))


def answer(work: Callable[[], dict[str, Any]], folder: Path) -> dict[str, Any]:
    """Do `work` in a child, so that this process does not compute; raise FoundError if that fails."""
    path, log = folder / "answer.json", folder / "answer.log"
    if ended(fork(lambda: path.write_text(json.dumps(work())) and 0, folder, log), PATIENCE) != 0:
        raise FoundError("corrupt", log.read_text())
    return dict(json.loads(path.read_text()))


def orphans(folder: Path, groups: set[int]) -> list[str]:
    """Return the processes that were started for a trial in `folder`, or forked in its groups, and are still there (Linux)."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            state, _, group = (process / "stat").read_text().rpartition(")")[2].split()[:3]
            is_ours = str(folder).encode() + b"/" in (process / "environ").read_bytes()
            if state != "Z" and (is_ours or int(group) in groups):
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue  # it has just ended, or is not ours
    return found


def whole_step(run: Path) -> int:
    """Return the newest step whose checkpoint has its manifest, -1 if there is none."""
    paths = (run / "checkpoints").glob("step-*/manifest.json")
    return max((int(path.parent.name.removeprefix("step-").removesuffix(".before")) for path in paths), default=-1)


@dataclass
class Trial:
    """One run that is struck; `draws` decides by what and when."""

    case: Case
    work: Path  # with the data
    folder: Path
    draws: random.Random
    total: Total
    reference: dict[str, Any]
    seconds: float  # that the run takes when nobody stops it

    def __post_init__(self) -> None:
        self.run = self.folder / "run"
        self.log = self.folder / "output.log"
        self.groups: set[int] = set()

    def go(self, *, cold: bool) -> None:
        """Strike, look, resume, and compare; raise FoundError for the first fault."""
        for number in range(self.draws.randint(1, 3)):
            is_cold = cold and number == 0 and self.case.is_command
            self.total.cold_starts += is_cold
            self._struck(self._start(cold=is_cold), self.seconds + COLD_SECONDS * is_cold)
        code = ended(child := self._start(), PATIENCE)
        if code is None:
            os.kill(child, signal.SIGKILL)
            ended(child, PATIENCE)
            raise FoundError("hung", "resume did not end")
        if code != 0:
            raise FoundError("wrong code", f"the last resume ended with {code}: {self.log.read_text()[-2000:]}")
        self._compare()

    def _start(self, *, cold: bool = False) -> int:
        warm = lambda: session(self.case, self.work, self.run)  # noqa: E731
        work = (lambda: replaced(command(self.case, self.work, self.run))) if cold else warm
        child = fork(work, self.folder, self.log)
        self.groups.add(child)
        return child

    def _struck(self, child: int, seconds: float) -> None:
        """Strike a child once, or twice with Ctrl-C, and check what it leaves."""
        existed, was_whole = self.run.exists(), whole_step(self.run)
        kinds = [signal.SIGKILL] * 5 + [*STOPS, None]
        kind, to_group = self.draws.choice(kinds), self.draws.random() < 0.5
        first, then = kind or signal.SIGINT, self.draws.uniform(0, 0.05)
        code = ended(child, self.draws.uniform(0, seconds))
        if code is None:
            was_whole = max(was_whole, whole_step(self.run))
            self.total.struck_training += self.run.exists()
            self.total.kills += kind is signal.SIGKILL
            self.total.signals += kind is not signal.SIGKILL
            self._send(child, first, to_group)
            if kind is None and (code := ended(child, then)) is None:
                self.total.second_signals += 1
                was_whole = max(was_whole, whole_step(self.run))
                self._send(child, first, to_group)
            code = ended(child, PATIENCE) if code is None else code
        if code is None:
            self._send(child, signal.SIGKILL, True)
            ended(child, PATIENCE)
            raise FoundError("hung", f"it did not end {PATIENCE:g} s after {first.name}")
        self._check_code(code, first)
        saves = not existed and kind in STOPS and code == 128 + first
        self._check_folder(was_whole, must_save=saves, finished=code == 0)

    def _send(self, child: int, number: int, to_group: bool) -> None:
        """Send a signal to a child, or its group once it leads one; it is not waited for yet, so its id is still its own."""
        if to_group and os.getpgid(child) == child:
            os.killpg(child, number)
        else:
            os.kill(child, number)

    def _check_code(self, code: int, number: int) -> None:
        """0 is for a run that has finished; -n, which a shell shows as 128 + n, is how a process ends that hears no signal yet."""
        expected = (0, -number) if number == signal.SIGKILL else (0, -number, 128 + number)
        if code not in expected:
            raise FoundError("wrong code", f"{code} after {signal.Signals(number).name}: {self.log.read_text()[-2000:]}")

    def _check_folder(self, was_whole: int, *, must_save: bool, finished: bool) -> None:
        """Raise FoundError unless everything that was saved can be read, and is what the run that nobody stopped has."""
        if not self.run.exists():
            if finished or was_whole >= 0:
                raise FoundError("corrupt", "there is no run folder")
            return
        found = answer(lambda: look(self.run), self.folder)
        step = -1 if found["step"] is None else found["step"]
        if step < was_whole or (must_save and step < 0):
            raise FoundError("corrupt", f"the newest whole checkpoint is {step}; that of step {was_whole} was whole")
        if finished and not found["ended"]:
            raise FoundError("wrong code", "0 for a run that has not finished")
        if found["log"] != self.reference["log"][: len(found["log"])]:
            raise FoundError("corrupt", "the log is not the beginning of what it would have been")

    def _compare(self) -> None:
        """Raise FoundError if the finished run differs, or left anything behind."""
        found = answer(lambda: look(self.run), self.folder)
        different = [name for name in self.reference if found[name] != self.reference[name]]
        if different:
            raise FoundError("different", f"{different}: {found['files']} and not {self.reference['files']}")
        strays = [str(path) for path in self.run.rglob(".*")]
        # A run folder that was being made goes when the next one is made, a day later.
        strays += [path.name for path in self.folder.glob(".*") if path.suffix != ".goodfit-new"]
        half = [str(path) for path in self.run.glob("checkpoints/*") if not (path / "manifest.json").exists()]
        if strays or half:
            raise FoundError("leftovers", ", ".join(strays + half))
        until = time.monotonic() + ORPHAN_SECONDS
        while left := orphans(self.folder, self.groups):
            if time.monotonic() > until:
                raise FoundError("leftovers", f"processes: {left}")
            time.sleep(0.05)


def reference(case: Case, work: Path, folder: Path) -> tuple[dict[str, Any], float]:
    """Return what an uninterrupted run leaves, and the seconds it takes."""
    folder.mkdir()
    started = time.monotonic()
    code = ended(fork(lambda: session(case, work, folder / "run"), folder, folder / "output.log"), PATIENCE)
    seconds = time.monotonic() - started
    assert code == 0, f"{case}: {code}\n{(folder / 'output.log').read_text()}"
    return answer(lambda: look(folder / "run"), folder), seconds


class Campaign:
    """Trials by number, in a folder of their own."""

    def __init__(self, work: Path, total: Total) -> None:
        self.work = work
        self.total = total
        self.references: dict[int, tuple[dict[str, Any], float]] = {}
        for name in IMPORTS + TENSORBOARD:
            import_module(name)
        write_data(work)

    def trial(self, number: int) -> bool:
        """Do a trial, count it, and return whether it found no fault."""
        place = number % len(CASES)
        if place not in self.references:
            self.references[place] = reference(CASES[place], self.work, self.work / f"reference-{place}")
        folder = self.work / f"trial-{number}"
        folder.mkdir()
        draws = random.Random(f"{self.total.seed}-{number}")
        trial = Trial(CASES[place], self.work, folder, draws, self.total, *self.references[place])
        try:
            trial.go(cold=number % COLD_EVERY == COLD_EVERY - 1)
        except FoundError as error:
            self.total.faults[error.kind] += 1
            again = f"python benchmarks/kill.py --seed {self.total.seed} --trial {number}"
            print(f"trial {number} ({CASES[place]}): {error}\n  kept: {folder}\n  again: {again}", flush=True)
            return False
        finally:
            self.total.trials += 1
        shutil.rmtree(folder)
        return True


def main() -> int:
    """Do the trials that are asked for, and print the running total; the exit code is 1 if one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100, help="how many trials")
    parser.add_argument("--state", type=Path, help="the running total, read and written")
    parser.add_argument("--seed", type=int, help="of the strikes; that of the state file by default")
    parser.add_argument("--trial", type=int, help="do this one again, once, and count nothing")
    options = parser.parse_args()
    state = None if options.trial is not None else options.state
    total = Total(**json.loads(state.read_text())) if state and state.exists() else Total()
    total.seed = total.seed if options.seed is None else options.seed
    work = Path(tempfile.mkdtemp(prefix="goodfit-kill-"))
    campaign, failed = Campaign(work, total), 0
    numbers = range(total.trials, total.trials + options.runs) if options.trial is None else [options.trial]
    for number in numbers:
        failed += not campaign.trial(number)
        if state:
            state.with_suffix(".new").write_text(json.dumps(asdict(total), indent=1) + "\n")
            state.with_suffix(".new").replace(state)
    print(f"{total.heading()}\n{total.markdown()}")
    if not failed:
        shutil.rmtree(work)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
