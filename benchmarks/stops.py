"""Stop every configuration of the resume tests at every place where it can be stopped, resume it, and compare every byte.

    python benchmarks/stops.py [--only NAME ...] [--epochs 10]

A run of 10 epochs has 60 steps, after each of which it can be stopped, and an evaluation an epoch and a test, which can be
stopped too. What is compared are the SHA-256 of the model files and of the last checkpoint's state, the log without its
clocks, and how often the test split was used. The last column is one run that was stopped at every second of these places,
three times an epoch.
"""

import argparse
import os
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from harness import BASE, CONFIGURATIONS, StopAt, fingerprints, make_data, request, run_with_stops, silent

from goodfit.artefacts.run import Run
from goodfit.errors import GoodfitError
from goodfit.workflows import train

NEVER = 1 << 30


@dataclass(frozen=True)
class Result:
    """What became of a configuration: the places of the stops that did not end with the same bytes, if any."""

    steps: int
    stops: int
    different: list[int]
    often_equal: bool

    def row(self, name: str) -> str:
        """Return a line of a table."""
        equal = f"{self.stops - len(self.different)} of {self.stops}"
        return f"| {name} | {self.steps} | {equal} | {'equal' if self.often_equal else 'DIFFERENT'} |"


def left_by(run: Run) -> tuple[dict[str, str], int]:
    """Return what must be equal: also how often the test split was looked at."""
    return fingerprints(run), run.test_uses


def stop_everywhere(name: str, settings: dict[str, Any]) -> Result:
    """Run a configuration once without a stop, and then with one at each place, in the working folder."""
    data, signals = make_data(name, Path.cwd()), StopAt(NEVER)
    through = train(request(data, Path("through"), settings), silent(), signals)
    expected, stops = left_by(through), NEVER - signals.left

    def ends_equally(where: str, places: list[int]) -> bool:
        with suppress(GoodfitError):  # which is not equal either
            return left_by(run_with_stops(data, Path(where), settings, places)) == expected
        return False

    different = [place for place in range(1, stops + 1) if not ends_equally(f"stopped-{place}", [place])]
    often = ends_equally("often", [2] * stops)
    assert through.end is not None
    return Result(int(through.end["step"]), stops, different, often)


def main() -> int:
    """Print the table, a line at a time; the exit code is 1 if anything differed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=CONFIGURATIONS, default=list(CONFIGURATIONS), metavar="NAME")
    parser.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args()
    print("| configuration | steps | stopped once, equal SHA-256 | stopped three times an epoch |\n| --- | --- | --- | --- |")
    results = []
    for name in options.only:
        with tempfile.TemporaryDirectory(prefix="goodfit-stops-") as folder:
            os.chdir(folder)
            os.environ["GOODFIT_CACHE"] = "cache"
            results.append(stop_everywhere(name, BASE | CONFIGURATIONS[name] | {"train.epochs": options.epochs}))
        print(results[-1].row(name) + (f" <!-- {results[-1].different} -->" if results[-1].different else ""), flush=True)
    equal = sum(result.stops - len(result.different) for result in results)
    print(f"| all {len(results)} | | {equal} of {sum(result.stops for result in results)} | |")
    return int(any(result.different or not result.often_equal for result in results))


if __name__ == "__main__":
    sys.exit(main())
