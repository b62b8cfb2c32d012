"""The public commands on tiny models, for recipes that may use nothing private."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path


def arbitrage(*arguments: str | Path) -> str:
    """Run a public command; its progress goes to standard error.

    Returns:
        Its standard output.

    Raises:
        subprocess.CalledProcessError: If it fails.
    """
    command = [sys.executable, "-m", "arbitrage", *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def write_pair(path: Path, models: Mapping[str, Path], device: str = "cpu") -> Path:
    """Write a pair's configuration.

    Args:
        path: The TOML file.
        models: Checkpoint folders by role.
        device: Where they run.

    Returns:
        The path.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    tables = [
        f'[{role}]\npath = "{folder.resolve()}"\nname = "tiny-{role}"\ndevice = "{device}"\n'
        for role, folder in models.items()
    ]
    path.write_text("\n".join(tables))
    return path
