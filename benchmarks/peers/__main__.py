"""Train the same network by goodfit and by its peers, in turn, and print what came of it as a Markdown table.

    python -m benchmarks.peers mnist-mlp --data-root DIR
    python -m benchmarks.peers cifar10-quick --cifar FOLDER
    python -m benchmarks.peers overhead
    python -m benchmarks.peers loader
    python -m benchmarks.peers startup --data-root DIR
    python -m benchmarks.peers folder --cifar FOLDER
    python -m benchmarks.peers accuracy --cifar FOLDER --recipe NAME ...

The peers come with `pip install goodfit[bench]`; those that are missing are named and left out. Each trains in a process of
its own, one at a time; the figures are medians, and in brackets the quartiles, of pairs of turns taken one after the other.
`--data-root` holds MNIST in torchvision's layout, `--cifar` CIFAR-10 as train/ and test/ class folders of pictures.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.peers.accuracy import AT_ONCE, table_of_accuracy
from benchmarks.peers.contestants import CONTESTANTS, choose
from benchmarks.peers.folder import table_of_folders
from benchmarks.peers.loader import table_of_loaders
from benchmarks.peers.request import Request
from benchmarks.peers.startup import table_of_startup
from benchmarks.peers.throughput import GOODFIT, HAND_WRITTEN, table_of_overhead, table_of_speed

EXAMPLES = {"mnist-mlp": 60_000, "cifar10-quick": 10_000, "tiny": 20_000}
TUTORIALS_EPOCHS = 10


def main() -> None:
    """Print the table that was asked for."""
    options = _parser().parse_args()
    print("\n".join(TABLES[options.table](options)))


def _mnist(options: argparse.Namespace) -> list[str]:
    return table_of_speed(_others("mnist-mlp", GOODFIT, options), _request("mnist-mlp", options), options.rounds)


def _cifar(options: argparse.Namespace) -> list[str]:
    return table_of_speed(_others("cifar10-quick", GOODFIT, options), _request("cifar10-quick", options), options.rounds)


def _overhead(options: argparse.Namespace) -> list[str]:
    return table_of_overhead(_others("tiny", HAND_WRITTEN, options), _request("tiny", options), options.rounds)


def _startup(options: argparse.Namespace) -> list[str]:
    return table_of_startup(_there("mnist-mlp", options), _request("mnist-mlp", options), options.rounds)


def _accuracy(options: argparse.Namespace) -> list[str]:
    request = _request("cifar10-quick", options, examples=50_000, epochs=TUTORIALS_EPOCHS)
    return table_of_accuracy(options.recipe, request, options.rounds, tutorial=options.tutorial)


TABLES: dict[str, Callable[[argparse.Namespace], list[str]]] = {
    "mnist-mlp": _mnist,
    "cifar10-quick": _cifar,
    "overhead": _overhead,
    "loader": lambda options: table_of_loaders(options.rounds),
    "startup": _startup,
    "folder": lambda options: table_of_folders(options.cifar, options.rounds),
    "accuracy": _accuracy,
}


def _request(work: str, options: argparse.Namespace, *, examples: int = 0, epochs: int = 1) -> Request:
    return Request(
        work=work,
        examples=options.examples or examples or EXAMPLES[work],
        epochs=options.epochs or epochs,
        data_root=options.data_root.resolve(),
        cifar=options.cifar.resolve(),
        device=options.device,
    )


def _there(work: str, options: argparse.Namespace) -> list[str]:
    """Return who takes part, and say who cannot."""
    there, missing = choose(work, options.only)
    if missing:
        print(f"not installed, and left out: {', '.join(missing)}", file=sys.stderr)
    return there


def _others(work: str, reference: str, options: argparse.Namespace) -> list[str]:
    return [name for name in _there(work, options) if name != reference]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.peers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument("--cifar", type=Path, default=Path("cifar10-images"))
    parser.add_argument("--rounds", type=int, default=7, help="pairs of turns, or of seeds for `accuracy`")
    parser.add_argument("--epochs", type=int, help="of a turn; 1, and the tutorial's 10 for `accuracy`")
    parser.add_argument("--examples", type=int, help="train on so many at most")
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, help="contestants")
    parser.add_argument(
        "--recipe", nargs="+", default=["cifar10-quick"], help=f"for `accuracy`; {AT_ONCE}: `fast`, for the tutorial's accuracy"
    )
    parser.add_argument("--no-tutorial", dest="tutorial", action="store_false", help="leave its program out of `accuracy`")
    parser.add_argument("--device", default="cpu")
    return parser


if __name__ == "__main__":
    main()
