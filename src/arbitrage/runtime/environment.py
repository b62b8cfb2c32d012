"""What a run ran on: noted beside its results, since seconds mean nothing without it."""

import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from arbitrage.core.errors import DISTRIBUTION

PACKAGES: Final = (DISTRIBUTION, "torch", "transformers", "tokenizers", "numpy", "llama-cpp-python", "math-verify")
RAPL: Final = Path("/sys/class/powercap")
"""Where Linux shows the energy counters of Intel's and AMD's processors."""


def environment(arguments: Sequence[str] = ()) -> dict[str, Any]:
    """Time, commit, versions, device and threads, as far as they can be told.

    Args:
        arguments: The command line, to repeat it.
    """
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "arguments": list(arguments),
        "commit": commit(Path(__file__).parent),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "num_cores": os.cpu_count(),
        **_torch(),
        "versions": _versions(),
    }


def commit(folder: Path) -> str | None:
    """The commit that a folder's files are of, marked where they differ from it.

    Returns:
        None outside of a repository, and inside of another project's, which does not know these files.
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
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _torch() -> dict[str, Any]:
    """Threads and graphics cards; only if the run has loaded torch, which is not loaded for this."""
    torch = sys.modules.get("torch")
    if torch is None:
        return {"num_threads": None, "devices": []}
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return {
        "num_threads": torch.get_num_threads(),
        "devices": [torch.cuda.get_device_name(number) for number in range(count)],
    }


class EnergyMeter:
    """The processor's energy counters (RAPL), in joules since the meter was made; graphics cards are not seen."""

    def __init__(self, folder: Path = RAPL) -> None:
        """Find the counters that may be read.

        Args:
            folder: Where they are.
        """
        zones = [zone for zone in sorted(folder.glob("intel-rapl:*")) if _is_package(zone)]
        found = {zone: value for zone in zones if (value := _read(zone / "energy_uj")) is not None}
        self._last, self._total_uj = found, 0
        self._ranges = {zone: _read(zone / "max_energy_range_uj") or 0 for zone in found}

    def read(self) -> float | None:
        """Joules so far; None where the machine reports none. Ask often: a counter that wraps twice is not noticed."""
        if not self._last:
            return None
        for zone, before in self._last.items():
            now = _read(zone / "energy_uj")
            if now is None:
                return None
            # A counter begins again behind its range.
            self._total_uj += now - before if now >= before else now - before + self._ranges[zone]
            self._last[zone] = now
        return self._total_uj / 1e6


def _is_package(zone: Path) -> bool:
    """Whether a zone is a whole processor: its parts, and the platform around it, hold the same joules again."""
    try:
        return (zone / "name").read_text().startswith("package")
    except OSError:
        return False


def _read(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
