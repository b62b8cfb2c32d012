"""How many threads can compute at full speed in this process."""

import os
from collections.abc import Collection
from pathlib import Path
from typing import Final

_CPUS: Final = Path("/sys/devices/system/cpu")
_QUOTA: Final = Path("/sys/fs/cgroup/cpu.max")


def num_physical_cores(allowed: Collection[int] | None = None, folder: Path = _CPUS, quota: Path = _QUOTA) -> int:
    """Physical cores that this process may use; hyper-threads of one core count once.

    llama.cpp's threads wait for each other busily at every operation: a thread that shares its core slows all others.

    Args:
        allowed: Numbers of the logical cores; None for those of this process.
        folder: Where the kernel says which logical cores share a physical one. Where it does not say it, half of the
            logical cores are counted.
        quota: The file in which the kernel says how much time the container may use.
    """
    if allowed is None:
        allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    try:
        siblings = {(folder / f"cpu{core}/topology/thread_siblings_list").read_text() for core in allowed}
        num_cores = len(siblings)
    except OSError:
        num_cores = len(allowed) // 2
    granted = _num_granted(quota)
    return max(1, num_cores if granted is None else min(num_cores, granted))


def _num_granted(quota: Path) -> int | None:
    """Cores whose time the container may use; None without a limit."""
    try:
        time_us, period_us = quota.read_text().split()
        return int(time_us) // int(period_us)
    except (OSError, ValueError):  # "max" in place of a number: no limit.
        return None
