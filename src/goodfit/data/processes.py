"""Processes that work through names for this one: asked over pipes, watched, and named with what they were at if they fail.

They are not made by `multiprocessing`, which would run the user's own script again in each of them, and what they import does
not import torch. A request is a line of JSON: a module, a function of it, and the arguments, of which the second are the names;
a reply is a line for each name, and one to say that all is done.
"""

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
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
                results.append(reply["result"])
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


@contextmanager
def runner(count: int, timeout: float) -> Iterator[Runner]:
    """Yield a function that does a task in `count` processes and gives the results in order; one is this process.

    A process that is at one name for longer than `timeout` seconds is ended.
    """
    if count == 1:
        yield lambda task, requests: (list(task(*request)) for request in requests)
        return
    workers: list[_Worker] = []
    idle: SimpleQueue[_Worker] = SimpleQueue()
    threads, ended = ThreadPoolExecutor(count), Event()
    watching = Thread(target=_watch, args=(workers, timeout, ended))

    def ask(task: Task, request: tuple[Any, ...]) -> list[Any]:
        worker = idle.get()
        try:
            return worker.ask(task, request)
        finally:
            idle.put(worker)

    try:
        for _ in range(count):
            workers.append(_Worker())
            idle.put(workers[-1])
        watching.start()
        yield lambda task, requests: threads.map(lambda request: ask(task, request), requests)
    finally:
        ended.set()
        for worker in workers:
            worker.end()
        threads.shutdown(cancel_futures=True)
        if watching.ident is not None:
            watching.join()
        for worker in workers:
            worker.close()


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
                _reply({"result": result})
            _reply({"end": True})
        except DataError as error:
            _reply({"error": str(error)})


def _reply(reply: dict[str, Any]) -> None:
    try:
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:  # the process that asked was killed; leave without a word
        os._exit(1)
