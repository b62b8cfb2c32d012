"""The machine and the software of a run, recorded beside its results because seconds depend on them."""

import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from arbitrage.version import __version__

PACKAGES: Final = ("torch", "transformers", "tokenizers", "numpy", "llama-cpp-python", "math-verify")
RAPL: Final = Path("/sys/class/powercap")
"""Folder of the energy counters of Intel's and AMD's processors under Linux."""


def environment(arguments: Sequence[str] = ()) -> dict[str, Any]:
    """Time, commit, versions, devices and threads, as far as they can be read.

    Args:
        arguments: The command line, to repeat the run.
    """
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "arguments": list(arguments),
        "commit": commit(Path(__file__).parent),
        **machine(),
    }


def machine() -> dict[str, Any]:
    """Versions, devices and threads: what the seconds of a given program depend on."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "num_cores": os.cpu_count(),
        **_torch(),
        "versions": _versions(),
    }


def commit(folder: Path) -> str | None:
    """The commit of a folder's files, with ``+changes`` if files differ from it.

    Returns:
        None outside a repository, and in a repository that does not track the files, such as another project's.
    """
    try:
        git = ("git", "-C", str(folder))
        if not subprocess.run([*git, "ls-files", "."], capture_output=True, text=True, timeout=10).stdout.strip():
            return None
        done = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True)
        changed = subprocess.run([*git, "status", "--porcelain", "."], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() + ("+changes" if changed.stdout.strip() else "")


def _versions() -> dict[str, str]:
    versions = {"arbitrage": __version__}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _torch() -> dict[str, Any]:
    """Threads and graphics cards if the run has imported torch; it is not imported for this alone."""
    torch = sys.modules.get("torch")
    if torch is None:
        return {"num_threads": None, "devices": []}
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return {
        "num_threads": torch.get_num_threads(),
        "devices": [torch.cuda.get_device_name(number) for number in range(count)],
    }


class EnergyMeter:
    """The processor's energy counters (RAPL) in joules since the meter was created; graphics cards are left out."""

    def __init__(self, folder: Path = RAPL) -> None:
        """Find the counters that this process may read.

        Args:
            folder: Their folder.
        """
        zones = [zone for zone in sorted(folder.glob("intel-rapl:*")) if _is_package(zone)]
        self._last = {zone: value for zone in zones if (value := _read(zone / "energy_uj")) is not None}
        self._total_uj = 0
        self._ranges = {zone: _read(zone / "max_energy_range_uj") or 0 for zone in self._last}

    def read(self) -> float | None:
        """Joules so far; None if the machine reports none. A counter must not wrap around twice between two reads."""
        if not self._last:
            return None
        for zone, before in self._last.items():
            now = _read(zone / "energy_uj")
            if now is None:
                return None
            # A counter restarts at 0 after its range.
            self._total_uj += now - before if now >= before else now - before + self._ranges[zone]
            self._last[zone] = now
        return self._total_uj / 1e6


def _is_package(zone: Path) -> bool:
    """Whether a zone is a whole processor; zones of its parts and of the platform count the same joules again."""
    try:
        return (zone / "name").read_text().startswith("package")
    except OSError:
        return False


def _read(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
