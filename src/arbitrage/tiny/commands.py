"""Run the public commands, for recipes that use no private functions."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path


def arbitrage(*arguments: str | Path) -> str:
    """Run a public command; its progress is printed to standard error.

    Returns:
        Its standard output.

    Raises:
        subprocess.CalledProcessError: If the command fails.
    """
    command = [sys.executable, "-m", "arbitrage", *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def write_pair(path: Path, models: Mapping[str, Path], device: str = "cpu") -> Path:
    """Write a pair's configuration.

    Args:
        path: The TOML file.
        models: Checkpoint folders by role.
        device: The torch device of all models.

    Returns:
        The path of the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    tables = [
        f'[{role}]\npath = "{folder.resolve()}"\nname = "tiny-{role}"\ndevice = "{device}"\n'
        for role, folder in models.items()
    ]
    path.write_text("\n".join(tables))
    return path
