"""Start model servers, wait until they answer, and stop them with all their child processes."""

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
from arbitrage.runtime.store import writing

_GRACE_S: Final = 10.0
"""Seconds that a server has to stop after SIGTERM, before SIGKILL."""
_TAIL: Final = 15
"""Lines at the end of a server's log that an error quotes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One server to start."""

    role: str
    """The role in the pair of the model that it serves; also the name of its log."""
    url: str
    models_path: str
    """Path of the URL that answers once the model is loaded."""
    command: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    """Variables added to the environment of this process."""
    api_key_env: str = ""
    """Environment variable that holds its API key; empty for none."""

    def __str__(self) -> str:
        """The command as a shell reads it."""
        return shlex.join([*(f"{name}={value}" for name, value in self.env.items()), *self.command])


@dataclass(frozen=True, slots=True)
class Started:
    """A running server."""

    server: Server
    process: "subprocess.Popen[bytes]"
    log: Path

    def check(self) -> None:
        """Check that the server still runs.

        Raises:
            EngineError: If it has ended; the message quotes the end of its log.
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
    on_ready: Callable[[Started], None] = lambda started: None,
    timeout_s: float = 600.0,
    poll_s: float = 0.5,
) -> Iterator[list[Started]]:
    """Start servers in parallel and keep them running while the context is open.

    Args:
        servers: The servers.
        logs: Folder for one log of each server, created if missing.
        is_ready: Whether a server answers.
        on_ready: Called with each server once it answers.
        timeout_s: Seconds that each server may take until it answers.
        poll_s: Seconds between two checks.

    Raises:
        EngineError: If a server ends or does not answer in time; then all are stopped.
        StoreError: If a log cannot be written.
    """
    with writing(logs):
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
                    on_ready(one)
            if waiting and time.monotonic() > deadline:
                late = waiting[0]
                raise EngineError(
                    f"the server of the {late.server.role} did not answer at {late.server.url} "
                    f"within {timeout_s:.0f} s",
                    hint=f"see {late.log}, or raise --timeout",
                )
            time.sleep(poll_s if waiting else 0.0)
        yield started
    finally:
        stop(started)


def _start(server: Server, log: Path) -> Started:
    with writing(log):
        file = log.open("wb")
    with file:
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
            start_new_session=True,  # Ctrl-C then reaches this process only, and child processes stop with the server.
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )
    except OSError as error:
        raise EngineError(
            f"cannot start the server of the {server.role}, {server.command[0]!r}: {error.strerror}",
            hint="install it, or name its command in the table [launch] of the pair's file",
        ) from error


def _die_with_parent() -> None:
    """Have the kernel send SIGTERM to the server when its parent dies: a killed parent cannot do it."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def stop(started: Sequence[Started]) -> None:
    """Stop servers and their child processes: by SIGTERM, then by SIGKILL."""
    for one in started:
        _signal(one, signal.SIGTERM)
    deadline = time.monotonic() + _GRACE_S
    for one in started:
        with suppress(subprocess.TimeoutExpired):
            one.process.wait(max(0.0, deadline - time.monotonic()))
        _signal(one, signal.SIGKILL)  # Also child processes that outlived the server.
        one.process.wait()


def _signal(started: Started, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(started.process.pid, number)
