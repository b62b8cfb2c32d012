"""Processes that answer a line with a line. A process that dies is replaced, and only its question has no answer."""

import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from queue import SimpleQueue

from arbitrage.core.errors import GradingError


class Pool:
    """A fixed number of processes, each started at its first question.

    Args:
        command: Starts one process, which must print a line when it is ready, and end itself if a question takes
            too long.
        size: Number of processes.
    """

    def __init__(self, command: Sequence[str], size: int) -> None:
        self._workers = [_Worker(command) for _ in range(size)]
        self._idle: SimpleQueue[_Worker] = SimpleQueue()
        for worker in self._workers:
            self._idle.put(worker)

    def ask(self, questions: Sequence[str]) -> list[str | None]:
        """Ask questions, each of one line.

        Returns:
            The answers in order; None if the process died over the question.

        Raises:
            GradingError: If a process cannot be started.
        """
        if len(questions) == 1:
            return [self._ask(questions[0])]
        with ThreadPoolExecutor(max_workers=len(self._workers)) as threads:
            return list(threads.map(self._ask, questions))

    def _ask(self, question: str) -> str | None:
        worker = self._idle.get()
        try:
            return worker.ask(question)
        finally:
            self._idle.put(worker)

    def close(self) -> None:
        """End all processes; a later question starts new ones."""
        for worker in self._workers:
            worker.stop()


class _Worker:
    def __init__(self, command: Sequence[str]) -> None:
        self._command = list(command)
        self._process: subprocess.Popen[str] | None = None

    def ask(self, question: str) -> str | None:
        if self._process and self._process.poll() is not None:
            self.stop()  # It died between questions; this one is answered by a new process.
        process = self._process or self._start()
        assert process.stdin
        assert process.stdout
        try:
            process.stdin.write(question + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except OSError:
            answer = ""
        except BaseException:  # After an interrupt, the answer would still come, and be taken for the next one.
            self.stop()
            raise
        if not answer:
            self.stop()
            return None
        return answer.rstrip("\n")

    def _start(self) -> "subprocess.Popen[str]":
        # A new interpreter instead of a fork: the parent may hold threads, a model and an event loop.
        path = os.pathsep.join(entry for entry in sys.path if entry)
        self._process = process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env={**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"},
        )
        assert process.stdout
        if not process.stdout.readline():
            code = process.wait()
            self.stop()
            raise GradingError(
                f"a grading process ended at its start, with status {code}", hint=" ".join(self._command)
            )
        return process

    def stop(self) -> None:
        if process := self._process:
            self._process = None
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe:
                    with suppress(OSError):  # Unread input cannot be flushed to a dead process.
                        pipe.close()
