"""Processes that work through names for this one: asked over pipes, watched, and named with what they were at if they fail.

They are not made by `multiprocessing`, which would run the user's own script again in each of them, and what they import does
not import torch. A request is a line of JSON: a module, a function of it, and the arguments, of which the second are the names;
a reply is a line for each name, with the bytes after it where these are the result, and one to say that all is done.
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
from queue import SimpleQueue
from subprocess import PIPE, Popen
from threading import Event, Thread
from time import monotonic
from typing import Any

from goodfit.errors import DataError, RunError

__all__ = ["Runner", "Task", "runner", "serve"]

Task = Callable[..., Iterator[Any]]  # (folder, names, ...) -> a result for each name
Runner = Callable[[Task, Iterable[tuple[Any, ...]]], Iterator[list[Any]]]  # requests -> a list of results for each, in order
LOOK = 0.2  # seconds between looks at how long the processes take


class _Worker:
    """One process, and how long it has been at one name."""

    def __init__(self) -> None:
        command = [sys.executable, "-P", "-c", "from goodfit.data.processes import serve; serve()"]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(folder or os.curdir for folder in sys.path)}
        # In a session of its own Ctrl-C at the terminal does not reach it: this process ends it.
        self._process = Popen(command, stdin=PIPE, stdout=PIPE, env=environment, start_new_session=True)  # noqa: S603  our own code
        self._since: float | None = None
        self._hangs = False

    def ask(self, task: Task, request: tuple[Any, ...]) -> list[Any]:
        """Return the results of one request; raise RunError naming what it was at if the process dies or hangs."""
        names: list[str] = list(request[1])
        results: list[Any] = []
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._since = monotonic()
            self._process.stdin.write(json.dumps([task.__module__, task.__name__, request]).encode() + b"\n")
            self._process.stdin.flush()
            while "end" not in (reply := json.loads(self._process.stdout.readline())):
                if "error" in reply:
                    raise DataError(reply["error"])
                results.append(self._read(reply["bytes"]) if "bytes" in reply else reply["result"])
                self._since = monotonic()
        except (OSError, ValueError) as error:
            did = "took too long" if self._hangs else "died"
            raise RunError(
                f"a process that decodes pictures {did} at {names[min(len(results), len(names) - 1)]!r}; replace that file, "
                "or wait longer with --set data.timeout=SECONDS"
            ) from error
        finally:
            self._since = None
        return results

    def _read(self, count: int) -> bytes:
        assert self._process.stdout is not None
        content = self._process.stdout.read(count)
        if len(content) < count:
            raise ValueError("it died in the midst of an answer")
        return content

    def watch(self, timeout: float) -> None:
        """End the process if it has been at one name for longer than `timeout` seconds."""
        since = self._since
        if since is not None and monotonic() - since > timeout:
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
    """Be such a process: answer the requests on standard input until it is closed."""
    for line in sys.stdin:
        module, name, request = json.loads(line)
        try:
            for result in getattr(import_module(module), name)(*request):
                if isinstance(result, bytes):
                    _reply({"bytes": len(result)}, result)
                else:
                    _reply({"result": result})
            _reply({"end": True})
        except DataError as error:
            _reply({"error": str(error)})


def _reply(reply: dict[str, Any], content: bytes = b"") -> None:
    try:
        sys.stdout.buffer.write(json.dumps(reply).encode() + b"\n" + content)
        sys.stdout.buffer.flush()
    except BrokenPipeError:  # the process that asked was killed; leave without a word
        os._exit(1)
