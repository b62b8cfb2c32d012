"""Starts the model servers that a pair names, waits until they answer, and stops them without leaving one behind."""

import ctypes
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from arbitrage.core.errors import EngineError

_GRACE_S: Final = 10.0
"""A server may take so long to stop on its own."""
_TAIL: Final = 15
"""Lines of a dead server's log that the error quotes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One server to start."""

    role: str
    """Which of a pair's models it serves; names its log."""
    url: str
    about: str
    """Path that answers once the model is loaded."""
    command: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    """Added to our own environment."""
    api_key_env: str = ""
    """Environment variable with the key that it wants."""

    def __str__(self) -> str:
        """The command as one would type it."""
        return shlex.join([*(f"{name}={value}" for name, value in self.env.items()), *self.command])


@dataclass(frozen=True, slots=True)
class Started:
    """A server that runs."""

    server: Server
    process: "subprocess.Popen[bytes]"
    log: Path

    def check(self) -> None:
        """Raise if it has ended.

        Raises:
            EngineError: With the last lines of its log.
        """
        if (status := self.process.poll()) is not None:
            lines = self.log.read_text(errors="replace").splitlines()[-_TAIL:]
            quoted = "\n".join(f"    {line}" for line in lines)
            raise EngineError(
                f"the server of the {self.server.role} ended with status {status}; its log {self.log} ends:\n{quoted}"
            )


@contextmanager
def running(
    servers: Sequence[Server],
    logs: Path,
    *,
    is_ready: Callable[[Server], bool],
    told: Callable[[Started], None] = lambda started: None,
    timeout_s: float = 600.0,
    poll_s: float = 0.5,
) -> Iterator[list[Started]]:
    """Start servers side by side and keep them while the context is open.

    Args:
        servers: Which.
        logs: Folder for one log a server, made if missing.
        is_ready: Whether a server answers.
        told: Called with each server once it answers.
        timeout_s: How long each may take until then.
        poll_s: Pause between two looks.

    Raises:
        EngineError: If one ends or does not answer in time; all are stopped then.
    """
    logs.mkdir(parents=True, exist_ok=True)
    started: list[Started] = []
    try:
        for server in servers:
            started.append(_start(server, logs / f"{server.role}.log"))
        waiting, deadline = list(started), time.monotonic() + timeout_s
        while waiting:
            for one in list(waiting):
                one.check()
                if is_ready(one.server):
                    waiting.remove(one)
                    told(one)
            if waiting and time.monotonic() > deadline:
                late = waiting[0]
                raise EngineError(
                    f"the server of the {late.server.role} did not answer at {late.server.url} "
                    f"within {timeout_s:.0f} s",
                    hint=f"see {late.log}, or give it more time with --timeout",
                )
            time.sleep(poll_s if waiting else 0.0)
        yield started
    finally:
        stop(started)


def _start(server: Server, log: Path) -> Started:
    with log.open("wb") as file:
        process = _spawn(server, file)
    return Started(server, process, log)


def _spawn(server: Server, file: IO[bytes]) -> "subprocess.Popen[bytes]":
    try:
        return subprocess.Popen(
            list(server.command),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, **server.env},
            start_new_session=True,  # So that Ctrl-C reaches us alone, and its helpers can be stopped with it.
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )
    except OSError as error:
        raise EngineError(
            f"cannot start the server of the {server.role}, {server.command[0]!r}: {error.strerror}",
            hint="install it, or name its command in the table [launch] of the configuration",
        ) from error


def _die_with_parent() -> None:
    """Have the kernel end this process if we are killed without a chance to do it ourselves."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def stop(started: Sequence[Started]) -> None:
    """End servers and whatever they started: politely, then by force."""
    for one in started:
        _signal(one, signal.SIGTERM)
    deadline = time.monotonic() + _GRACE_S
    for one in started:
        with suppress(subprocess.TimeoutExpired):
            one.process.wait(max(0.0, deadline - time.monotonic()))
        _signal(one, signal.SIGKILL)  # Its helpers too, if it has left any.
        one.process.wait()


def _signal(started: Started, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(started.process.pid, number)
