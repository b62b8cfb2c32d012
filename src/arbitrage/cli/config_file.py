"""Options from a file: ``--config FILE`` sets options that the command line leaves out."""

import difflib
import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

from arbitrage.core.errors import ConfigError


def read_defaults(context: typer.Context, path: Path | None) -> Path | None:
    """Read the defaults of a command's options from a TOML file; a list stands for its parts joined by commas.

    Raises:
        ConfigError: If the file is missing or not TOML, or a key is not an option of the command.
    """
    if path is None or context.resilient_parsing:
        return path
    try:
        record = tomllib.loads(path.read_text())
    except FileNotFoundError as error:
        raise ConfigError(f"no file at {str(path)!r}", hint="--config names a TOML file") from error
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error
    # Keys are the options' names on the command line, which can differ from the function's parameters.
    options = {name.lstrip("-"): param for param in context.command.params for name in param.opts if name != "--config"}
    context.default_map = {}
    for key, value in record.items():
        if key not in options:
            near = difflib.get_close_matches(key, options, n=1)
            raise ConfigError(f"{path}: unknown option {key!r}", hint=f"did you mean {near[0]!r}?" if near else "")
        context.default_map[str(options[key].name)] = _plain(value, f"{path}: {key}")
    return path


def _plain(value: Any, name: str) -> Any:
    if isinstance(value, list):
        return ",".join(str(part) for part in value)
    if isinstance(value, str | int | float):
        return value
    raise ConfigError(f"{name} must be a number, a text, a truth value or a list, got {value!r}")


ConfigOption = Annotated[
    Path | None,
    typer.Option(
        help="TOML file with options by their names, such as policies = ['target', 'router']. The command line wins.",
        callback=read_defaults,
        is_eager=True,
    ),
]
