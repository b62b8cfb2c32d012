"""A run's folder: the settings that identify the run, and an append-only file of records that survives a kill."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, Self

from filelock import FileLock, Timeout

from arbitrage.core.errors import StoreError

MANIFEST: Final = "manifest.json"
"""File with the settings that the results in the folder depend on."""
LOCK: Final = ".lock"
PARTIAL: Final = "manifest.partial"
SESSIONS: Final = "sessions.json"
"""File with one environment for each start of a run, where it is recorded."""
NO_RESULTS: Final = (MANIFEST, LOCK, PARTIAL, SESSIONS, "sessions.partial")
"""Files that a run writes before its first result."""


def run_key(settings: Mapping[str, Any]) -> str:
    """Hash of all settings that change a run's result; the same settings give the same key."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Write to a file or folder.

    Raises:
        StoreError: If the disk or the system refuses it.
    """
    try:
        yield
    except OSError as error:
        raise StoreError(f"cannot write to {str(path)!r}: {error.strerror or error}") from error


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write a JSON file atomically: a kill leaves the old file or the new one.

    Raises:
        StoreError: If it cannot be written.
    """
    partial = path.with_suffix(".partial")
    with writing(path):
        partial.write_text(json.dumps(record, indent=2) + "\n")
        partial.replace(path)


class RunFolder:
    """A run's folder, locked while it is open; its manifest holds the settings that the results depend on."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        """Describe a folder; entering it reads and writes.

        Args:
            folder: Created if it is missing.
            settings: All settings that change the results; on resuming they are compared with the manifest's.
        """
        self.folder, self.settings = folder, dict(settings)
        self._lock = FileLock(folder / LOCK)

    def __enter__(self) -> Self:
        """Lock the folder and check that it belongs to the same run.

        Raises:
            StoreError: If the folder cannot be written, belongs to another run, or is in use.
        """
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                self._lock.acquire(timeout=0)
            except Timeout as error:
                raise StoreError(
                    f"{str(self.folder)!r} is in use by another process", hint="wait until that process ends"
                ) from error
        try:
            self._check_manifest()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._lock.release()

    def _check_manifest(self) -> None:
        path = self.folder / MANIFEST
        others = [entry for entry in self.folder.iterdir() if entry.name not in NO_RESULTS]
        results = [entry.name for entry in others if _holds_bytes(entry)]
        if path.exists():
            earlier = read_manifest(self.folder)
            if results or run_key(earlier) == run_key(self.settings):
                check_same(earlier, self.settings, str(self.folder))
                return
            with writing(self.folder):
                (self.folder / SESSIONS).unlink(missing_ok=True)
        if results:
            raise StoreError(
                f"{str(self.folder)!r} holds {results[0]!r} but no {MANIFEST}", hint="choose a new or empty folder"
            )
        # A manifest left by a run that failed before its first result is replaced.
        write_json(path, {"key": run_key(self.settings), "settings": self.settings})


def _holds_bytes(entry: Path) -> bool:
    """Whether a file has content, or a folder holds a file with content."""
    files = entry.rglob("*") if entry.is_dir() else [entry]
    return any(file.is_file() and file.stat().st_size for file in files)


class GroupLog:
    """Records in groups (the steps of one problem), one JSON object a line, in a run's folder.

    A group is written by one call, and its last record is marked by ``is_last``. After a kill the file can end in a
    part of a group, which is cut off when the log is opened again. The folder's lock excludes a second process.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], *, id_field: str, name: str = "rows.jsonl") -> None:
        """Describe a log; entering it reads and writes.

        Args:
            folder: See :class:`RunFolder`.
            settings: See :class:`RunFolder`.
            id_field: The field with the id of a record's group.
            name: The file's name.
        """
        self.path = folder / name
        self._run, self._id_field = RunFolder(folder, settings), id_field
        self._file: int | None = None
        self.done: set[str] = set()
        """Ids of the complete groups."""
        self.num_records = 0

    def __enter__(self) -> Self:
        """Open the folder, and find the complete groups.

        Raises:
            StoreError: As for :meth:`RunFolder.__enter__`; also if a line of the file is not a record.
        """
        with ExitStack() as stack:
            stack.enter_context(self._run)
            with writing(self.path):
                self._recover()
                self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            stack.pop_all()  # The folder stays open unless opening the log fails.
        return self

    def __exit__(self, *exception: object) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
        self._run.__exit__(*exception)

    def _recover(self) -> None:
        if not self.path.exists():
            return
        end_of_groups = 0
        pending: list[str] = []
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                record = _parse(line, f"{self.path}:{number}") if line.endswith(b"\n") else None
                if record is None:
                    break  # Only the last line can be incomplete.
                pending.append(str(record.get(self._id_field)))
                if record.get("is_last"):
                    self.done.add(pending[-1])
                    self.num_records += len(pending)
                    pending.clear()
                    end_of_groups = file.tell()
        os.truncate(self.path, end_of_groups)

    def append(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Write one group; its last record must have ``is_last``.

        Raises:
            StoreError: If writing fails. A part of the group that was written is cut off when the log is opened again.
        """
        if self._file is None:
            raise StoreError("the log is not open")
        block = memoryview("".join(json.dumps(record) + "\n" for record in records).encode())
        with writing(self.path):
            while block:
                block = block[os.write(self._file, block) :]
            os.fsync(self._file)
        self.done.add(str(records[-1][self._id_field]))
        self.num_records += len(records)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The settings that a folder's records depend on.

    Raises:
        StoreError: If there is no manifest, or it cannot be read.
    """
    path = folder / MANIFEST
    try:
        settings: dict[str, Any] = json.loads(path.read_text())["settings"]
    except FileNotFoundError as error:
        raise StoreError(f"no {MANIFEST} in {str(folder)!r}", hint="name a folder that a run wrote") from error
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise StoreError(f"{path}: not a manifest: {error}") from error
    return settings


def check_same(earlier: Mapping[str, Any], current: Mapping[str, Any], folder: str) -> None:
    """Compare a run's settings with those of the records in its folder.

    Raises:
        StoreError: If they differ; the message names each field with both values.
    """
    current = json.loads(json.dumps(current))  # In the form in which a manifest holds them.
    if differences := "; ".join(_differences(earlier, current)):
        raise StoreError(
            f"{folder!r} belongs to another run: {differences}", hint="choose another folder, or the same values"
        )


def _differences(earlier: Mapping[str, Any], current: Mapping[str, Any], above: str = "") -> Iterator[str]:
    for name in dict.fromkeys((*earlier, *current)):
        was, now = earlier.get(name), current.get(name)
        if isinstance(was, dict) and isinstance(now, dict):
            yield from _differences(was, now, f"{above}{name}.")
        elif was != now:
            yield f"{above}{name} was {was!r}, now {now!r}"


def read_records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (location, record) for each line; a last line without a line break, as a kill leaves it, is left out.

    Raises:
        StoreError: If the file is missing, or a line is not a JSON object.
    """
    if not path.is_file():
        raise StoreError(f"no records at {str(path)!r}", hint="name a folder that a run wrote")
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.endswith(b"\n"):
                yield f"{path}:{number}", _parse(line, f"{path}:{number}")


def _parse(line: bytes, location: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise StoreError(f"{location}: not a record: {error}") from error
    if not isinstance(record, dict):
        raise StoreError(f"{location}: not a record: {type(record).__name__}")
    return record
