"""Hostile files: real ones of every kind that goodfit reads, mutated, and read under a hook that sees any code they run.

A campaign is a function of (loader, seed, number), so that each file can be made again by itself.
"""

import json
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hostile_samples import FOREIGN, LOADERS, Files

from goodfit.data.table import PROOF
from goodfit.errors import GoodfitError

__all__ = ["LIMIT_SECONDS", "LOADERS", "Guard", "Outcome", "campaign", "mutate", "mutate_json", "read_one"]

LIMIT_SECONDS = 1.0
LONGEST_MESSAGE = 2_000  # characters
SPARE = 64 << 20  # bytes of memory, beyond twice the file
WRITING = 0o1 | 0o2 | 0o100 | 0o1000 | 0o2000  # O_WRONLY, O_RDWR, O_CREAT, O_TRUNC, O_APPEND
FORBIDDEN = (
    *("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "os.startfile", "pty.spawn"),
    *("socket.connect", "socket.bind", "socket.getaddrinfo", "urllib.Request", "webbrowser.open"),
    *("pickle.find_class", "code.__new__", "ctypes.dlopen", "ctypes.dlsym"),
)
WRITES = (
    *("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.chmod", "os.truncate", "os.putenv"),
    "shutil.rmtree",
)
OWN_PROCESSES = (  # that in which a parquet file is read first, and one that decodes pictures
    ["-c", PROOF],
    ["-c", "from goodfit.data.processes import serve; serve()"],
)
BYTES = (0x00, 0x01, 0x7F, 0x80, 0xFF)
TOKENS = (
    *(
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b"\0",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b'"',
        b"'",
        b"\\u0000",
        b"\\ud800",
        b"\r",
        b"\n\n",
    ),
    *(
        b"1e999",
        b"-1",
        b"9" * 5_000,
        b"NaN",
        b"-Infinity",
        b"null",
        b"true",
        b"18446744073709551616",
        b"../../x",
        b"%s%n",
        b",",
    ),
    *(
        b"\x80\x04cos\nsystem\n(S'true'\ntR.",
        b"cbuiltins\nexec\n(S'1'\ntR.",
        b"__import__('os').system('true')",
        b"\xf0\x9f\x92\xa9",
    ),
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 3, 255, 10**4, 10**9, 2**31, 2**63, 2**64, 10**30, 1e308, 1e-320, -1.5, float("nan")),
    *(
        float("inf"),
        "",
        "0" * 64,
        "\0",
        "\ud800",
        "../..",
        "x" * 10_000,
        "RGB",
        "value",
        "F64",
        "U8",
        [],
        {},
        [[]],
        [-1],
        [2**40],
    ),
    *(
        [10**9] * 3,
        [1] * 100_000,
        {"a": {}},
        "mlp",
        "convnet",
        "lenet",
        "resnet18",
        "torchvision/resnet18",
        "torchvision/vit_b_16",
    ),
    *(
        "torchvision/regnet_y_128gf",
        "timm/resnet18",
        "timm/vit_giant_patch14_224",
        "os.system",
        [[[[[[]]]]]],
        {"pretrained": True},
    ),
)


@dataclass
class Guard:
    """An audit hook that notes what no file may make a reader do; `watching` turns it on.

    `may_write` is for a whole command, which writes its run folder and asks for the devices of this machine.
    """

    may_write: bool = False
    caught: list[str] = field(default_factory=list)
    is_on: bool = False
    own_code: tuple[str, ...] = tuple({sys.prefix, sys.base_prefix, str(Path(__file__).parents[1] / "src")})

    def install(self) -> "Guard":
        """Add the hook to this process, for good."""
        sys.addaudithook(self._see)
        return self

    @contextmanager
    def watching(self) -> Iterator[None]:
        self.is_on = True
        try:
            yield
        finally:
            self.is_on = False

    def _see(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.is_on and self._is_foreign(event, arguments):
            self.caught.append(f"{event} {arguments!r:.200}")
            raise RuntimeError(f"a file made its reader do {event}")

    def _is_foreign(self, event: str, arguments: tuple[Any, ...]) -> bool:
        if event == "open":
            file, mode, flags = arguments
            if self.may_write or isinstance(file, int):  # a pipe
                return False
            return bool(set(mode or "") & set("wax+")) or bool((flags or 0) & WRITING)
        if event == "exec":
            return not self._is_own(arguments[0].co_filename)
        if event == "compile":  # "<unknown>" is of ast.parse, with which numpy reads its headers: that runs nothing
            return not self._is_own(str(arguments[1])) and arguments[1] != "<unknown>"
        if event.startswith("marshal."):  # which is how Python's own importer reads the modules that are installed
            return not sys._getframe(2).f_code.co_filename.startswith("<frozen importlib")
        if event == "subprocess.Popen":
            return list(arguments[1])[2:4] not in OWN_PROCESSES
        if event == "ctypes.dlopen" and arguments[0] is None:  # this process's own C library
            return False
        if event == "ctypes.dlsym" and arguments[1] in ("mallopt", "malloc_trim"):
            return False
        if event == "ctypes.dlopen" and self.may_write:
            return arguments[0] != "libnvidia-ml.so.1"
        if event == "import":
            return arguments[0].partition(".")[0] not in sys.modules and arguments[0] not in sys.stdlib_module_names
        return event in FORBIDDEN or (event in WRITES and not self.may_write)

    def _is_own(self, name: str) -> bool:
        return name.startswith((*self.own_code, "<frozen"))


@dataclass(frozen=True)
class Outcome:
    """What became of one file: "refused", "loaded", or else what went wrong."""

    number: int
    verdict: str
    milliseconds: float
    grown: int  # bytes of memory
    detail: str = ""


def mutate(chance: random.Random, content: bytes) -> bytes:
    """Return `content` with one to three wounds, most of them near its ends, where formats keep what they say of themselves."""
    for _ in range(chance.choice((1, 1, 2, 3))):
        content = chance.choice(WOUNDS)(chance, content)
    return content


def _place(chance: random.Random, content: bytes) -> int:
    near = chance.choice((16, 64, 512, len(content) + 1, len(content) + 1))
    place = chance.randrange(min(near, len(content) + 1))
    return place if chance.random() < 0.7 else len(content) - place


def _span(chance: random.Random, content: bytes) -> tuple[int, int]:
    first = _place(chance, content)
    return first, min(len(content), first + chance.choice((1, 2, 4, 8, 64, 1024, len(content))))


def _flip(chance: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(chance.choice((1, 1, 1, 2, 8, 64)) if content else 0):
        changed[min(_place(chance, content), len(content) - 1)] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _cut(chance: random.Random, content: bytes) -> bytes:
    return content[: _place(chance, content)]


def _insert(chance: random.Random, content: bytes) -> bytes:
    place = _place(chance, content)
    return content[:place] + chance.randbytes(chance.choice((1, 4, 100, 5000))) + content[place:]


def _delete(chance: random.Random, content: bytes) -> bytes:
    first, last = _span(chance, content)
    return content[:first] + content[last:]


def _repeat(chance: random.Random, content: bytes) -> bytes:
    first, last = _span(chance, content)
    return content[:last] + content[first:last] * chance.choice((1, 1, 2, 20)) + content[last:]


def _move(chance: random.Random, content: bytes) -> bytes:
    first, last = _span(chance, content)
    rest = content[:first] + content[last:]
    place = _place(chance, rest)
    return rest[:place] + content[first:last] + rest[place:]


def _lie(chance: random.Random, content: bytes) -> bytes:
    """Write a number where a length may stand, in either order of its bytes."""
    place, size = _place(chance, content), chance.choice((1, 2, 4, 8))
    number = chance.choice((0, 1, len(content), 2**15, 2**16, 2**24, 2**31 - 1, 2**31, 2**63 - 1, 2**64 - 1))
    lie = (number % 2 ** (8 * size)).to_bytes(size, chance.choice(("big", "little")))
    return content[:place] + lie + content[place + size :]


def _fill(chance: random.Random, content: bytes) -> bytes:
    first, last = _span(chance, content)
    return content[:first] + bytes([chance.choice(BYTES)]) * (last - first) + content[last:]


def _say(chance: random.Random, content: bytes) -> bytes:
    place = _place(chance, content)
    return content[:place] + chance.choice(TOKENS) + content[place + chance.choice((0, 0, 1, 8)) :]


def _change_number(chance: random.Random, content: bytes) -> bytes:
    """Put another number in place of one written in digits."""
    digits = [place for place, byte in enumerate(content[:4096]) if 48 <= byte <= 57]
    if not digits:
        return content
    place = chance.choice(digits)
    number = chance.choice((b"0", b"-1", b"65536", b"4294967296", b"99999999999999999999", b"1e400", b"0x10", b"1.5"))
    return content[:place] + number + content[place + 1 :]


WOUNDS = (_flip, _flip, _flip, _cut, _insert, _delete, _repeat, _move, _lie, _lie, _fill, _say, _change_number)


def mutate_json(chance: random.Random, value: Any) -> Any:
    """Return a JSON value with one to three of its parts replaced, removed, repeated or exchanged."""
    value = json.loads(json.dumps(value))
    for _ in range(chance.choice((1, 1, 2, 3))):
        holder, key = chance.choice(list(_places([value])))
        deed = chance.random()
        if deed < 0.6:
            holder[key] = deepcopy(chance.choice(VALUES))  # else the next mutation would change the list of them
        elif deed < 0.7:
            holder[key] = json.loads("[" * 500 + "]" * 500)
        elif deed < 0.8 and len(holder) > 1:
            del holder[key]
        elif isinstance(holder, list):
            holder.extend([holder[key]] * (5_000 if len(json.dumps(holder[key])) < 100 else 2))
        else:
            other = chance.choice(list(holder))
            holder[key], holder[other] = holder[other], holder[key]
    return value


def _places(value: Any, depth: int = 40) -> Iterator[tuple[Any, Any]]:
    keys = list(value) if isinstance(value, dict) else range(min(len(value), 20)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        if depth:
            yield from _places(value[key], depth - 1)


def campaign(name: str, seed: int, numbers: range, folder: Path, guard: Guard) -> Iterator[Outcome]:
    """Read one mutated file after the other; the first sample of each kind is read whole before, and must load."""
    loader = LOADERS[name]
    samples = loader.samples(folder)
    for sample in samples:  # also imports what reading imports
        loader.load(_written(folder, sample))
    for number in numbers:
        chance = random.Random(f"{name} {seed} {number}")
        mutant = loader.mutant(chance, chance.choice(samples), Mutations())
        place = _written(folder, mutant.files)
        outcome = read_one(number, lambda place=place: loader.load(place), mutant, guard, loader.room)
        if outcome.verdict == "slow":  # once more: this machine may have been busy
            outcome = read_one(number, lambda place=place: loader.load(place), mutant, guard, loader.room)
        yield outcome


class Mutations:
    """What the loaders of `hostile_samples` make their mutants with."""

    bytes = staticmethod(mutate)
    json = staticmethod(mutate_json)


def _written(folder: Path, files: Files) -> Path:
    place = folder / "case"
    for name, content in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)
    return place


def read_one(number: int, load: Callable[[], object], mutant: Any, guard: Guard, room: int = 0) -> Outcome:
    """Read one file and judge what came of it."""
    before, size = _memory(reset=True), sum(map(len, mutant.files.values()))
    guard.caught.clear()
    verdict, detail = "loaded", ""
    started = time.perf_counter()
    try:
        with guard.watching():
            load()
    except GoodfitError as error:
        verdict, detail = "refused", str(error)
        if "\n" in detail or len(detail) > LONGEST_MESSAGE:
            verdict = "more than a line"
    except FOREIGN as error:
        verdict, detail = "foreign error", f"{type(error).__name__}: {error}"
    milliseconds = 1000 * (time.perf_counter() - started)
    grown = _memory() - before
    if guard.caught:
        verdict, detail = "code run", "; ".join(guard.caught)
    elif verdict == "loaded" and mutant.must_be_refused:
        verdict = "damage not noticed"
    elif verdict in ("loaded", "refused") and grown > 2 * size + SPARE + room:
        verdict, detail = "large", f"{grown >> 20} MB for {size:,} bytes: {detail}"
    elif verdict in ("loaded", "refused") and milliseconds > 1000 * LIMIT_SECONDS:
        verdict = "slow"
    return Outcome(number, verdict, milliseconds, grown, detail[:500])


def _memory(*, reset: bool = False) -> int:
    """Return the most memory in bytes that this process held since the last reset (Linux; elsewhere nothing is known)."""
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    return int(status.partition("VmHWM:")[2].split()[0]) << 10
