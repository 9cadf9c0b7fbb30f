"""Processes that work through names for this one: asked over pipes, watched, and named with what they were at if they fail.

They are not made by `multiprocessing`, which would run the user's own script again in each of them, and what they import does
not import torch. A request is a line of JSON: a module, a function of it, and the arguments, of which the second are the names;
a reply is a line with the results, after which their bytes follow where these are the results. At which of the names it is a
process writes into memory that both share, so that no answer has to be waited for to know it.
"""

import atexit
import json
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from importlib import import_module
from mmap import mmap
from pathlib import Path
from queue import SimpleQueue
from subprocess import PIPE, Popen
from tempfile import gettempdir, mkstemp
from threading import Event, Thread
from time import monotonic
from typing import Any

from goodfit.errors import DataError, RunError

__all__ = ["Runner", "Task", "runner", "serve"]

Task = Callable[..., Iterator[Any]]  # (folder, names, ...) -> a result for each name
Runner = Callable[[Task, Iterable[tuple[Any, ...]]], Iterator[list[Any]]]  # requests -> a list of results for each, in order
LOOK = 0.2  # seconds between looks at how long the processes take
SIZE = 8  # bytes of a place


class _Place:
    """A number that two processes share: which of the names of a request one of them is at."""

    def __init__(self, file: Path) -> None:
        with file.open("r+b") as stream:
            self._memory = mmap(stream.fileno(), SIZE)

    @classmethod
    def made(cls) -> tuple["_Place", Path]:
        """Return a new one, and the file that it lies in."""
        try:
            descriptor, name = mkstemp(prefix="goodfit-")
            os.write(descriptor, bytes(SIZE))  # not a hole, which a full disk could not fill any more
            os.close(descriptor)
        except OSError as error:
            raise DataError(
                f"no process can be started to decode pictures: {error.strerror}; free some space in {gettempdir()!r}"
            ) from error
        return cls(Path(name)), Path(name)

    def set(self, number: int) -> None:
        self._memory[:] = number.to_bytes(SIZE, "little")

    def get(self) -> int:
        return int.from_bytes(self._memory[:], "little")


class _Worker:
    """One process, and how long it has been at one name."""

    def __init__(self) -> None:
        self._place, self._file = _Place.made()
        command = [sys.executable, "-P", "-c", "from goodfit.data.processes import serve; serve()", str(self._file)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(folder or os.curdir for folder in sys.path)}
        # In a session of its own Ctrl-C at the terminal does not reach it: this process ends it.
        self._process = Popen(command, stdin=PIPE, stdout=PIPE, env=environment, start_new_session=True)  # noqa: S603  our own code
        self._request = 0  # counted; 0 where there is none
        self._asked = 0
        self._seen, self._since = (0, 0), monotonic()
        self._hangs = False

    def ask(self, task: Task, request: tuple[Any, ...]) -> list[Any]:
        """Return the results of one request; raise RunError naming what it was at if the process dies or hangs."""
        names: list[str] = list(request[1])
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._place.set(0)
            self._asked += 1
            self._request = self._asked
            self._process.stdin.write(json.dumps([task.__module__, task.__name__, request]).encode() + b"\n")
            self._process.stdin.flush()
            reply = json.loads(self._process.stdout.readline())
            if "error" in reply:
                raise DataError(reply["error"])
            return reply["results"] if "results" in reply else [self._read(count) for count in reply["bytes"]]
        except (OSError, ValueError) as error:
            did = "took too long" if self._hangs else "died"
            raise RunError(
                f"a process that decodes pictures {did} at {names[min(self._place.get(), len(names) - 1)]!r}; replace that file, "
                "or wait longer with --set data.timeout=SECONDS"
            ) from error
        finally:
            self._request = 0

    def _read(self, count: int) -> bytes:
        assert self._process.stdout is not None
        content = self._process.stdout.read(count)
        if len(content) < count:
            raise ValueError("it died in the midst of an answer")
        return content

    def watch(self, timeout: float) -> None:
        """End the process if it has been at one name for longer than `timeout` seconds."""
        now = (self._request, self._place.get())
        if now != self._seen or not self._request:
            self._seen, self._since = now, monotonic()
        elif monotonic() - self._since > timeout:
            self._hangs = True
            self._process.kill()

    def end(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Close its pipes."""
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(BrokenPipeError):  # a request that it did not live to read
                assert pipe is not None
                pipe.close()
        with suppress(OSError):  # Windows keeps what is open
            self._file.unlink(missing_ok=True)  # the process has removed it, if it lived to


class _Team:
    """Processes, and for each of them a thread that gives it one request after the other and waits for the answer."""

    def __init__(self, count: int, timeout: float) -> None:
        self._workers: list[_Worker] = []
        self._asked: SimpleQueue[tuple[Task, tuple[Any, ...], Future[list[Any]]] | None] = SimpleQueue()
        self._ended = Event()
        # As daemons they do not keep an interpreter that a team was forgotten in from its end.
        self._threads = [Thread(target=_watch, args=(self._workers, timeout, self._ended), daemon=True)]
        atexit.register(self.close)
        try:
            for _ in range(count):
                self._workers.append(_Worker())
                self._threads.append(Thread(target=self._work, args=(self._workers[-1],), daemon=True))
            for thread in self._threads:
                thread.start()
        except BaseException:
            self.close()
            raise

    def run(self, task: Task, requests: Iterable[tuple[Any, ...]], ahead: int | None) -> Iterator[list[Any]]:
        """Give the results of each request, in order, and begin `ahead` of them before they are taken."""
        begun: deque[Future[list[Any]]] = deque()
        for request in requests:
            begun.append(Future())
            self._asked.put((task, request, begun[-1]))
            if ahead is not None and len(begun) > ahead:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()

    def close(self) -> None:
        """End the processes; what is being waited for fails."""
        atexit.unregister(self.close)
        self._ended.set()
        for worker in self._workers:
            worker.end()
            self._asked.put(None)
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()
        for worker in self._workers:
            worker.close()

    def _work(self, worker: _Worker) -> None:
        while asked := self._asked.get():
            task, request, answer = asked
            try:
                answer.set_result(worker.ask(task, request))
            except Exception as error:  # noqa: BLE001  it is raised again where the answer is taken
                answer.set_exception(error)


@contextmanager
def runner(count: int, timeout: float, ahead: int | None = None) -> Iterator[Runner]:
    """Yield a function that does a task in `count` processes and gives the results in order; without any it is this process.

    Of the requests `ahead` are begun before their results are taken, or all. A process that is at one name for longer than
    `timeout` seconds is ended.
    """
    if not count:
        yield lambda task, requests: (list(task(*request)) for request in requests)
        return
    team = _Team(count, timeout)
    try:
        yield lambda task, requests: team.run(task, requests, ahead)
    finally:
        team.close()


def _watch(workers: list[_Worker], timeout: float, ended: Event) -> None:
    while not ended.wait(min(LOOK, timeout)):
        for worker in workers:
            worker.watch(timeout)


def serve() -> None:
    """Be such a process: answer the requests on standard input until it is closed; the argument is the place's file."""
    file = Path(sys.argv[1])
    place = _Place(file)
    with suppress(OSError):  # Windows keeps what is open
        file.unlink()  # so that nothing is left, whoever is killed
    for line in sys.stdin:
        module, name, request = json.loads(line)
        results = []
        try:
            for result in getattr(import_module(module), name)(*request):
                results.append(result)
                place.set(len(results))
        except DataError as error:
            _reply({"error": str(error)})
            continue
        if results and isinstance(results[0], bytes):
            _reply({"bytes": list(map(len, results))}, b"".join(results))
        else:
            _reply({"results": results})


def _reply(reply: dict[str, Any], content: bytes = b"") -> None:
    try:
        sys.stdout.buffer.write(json.dumps(reply).encode() + b"\n" + content)
        sys.stdout.buffer.flush()
    except BrokenPipeError:  # the process that asked was killed; leave without a word
        os._exit(1)
