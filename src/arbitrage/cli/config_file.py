"""Options from a file: ``--config FILE`` gives any option that the command line leaves out."""

import difflib
import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

from arbitrage.core.errors import ConfigError


def read_defaults(context: typer.Context, path: Path | None) -> Path | None:
    """Take the defaults of a command's options from a TOML file; a list stands for its parts, joined by commas.

    Raises:
        ConfigError: If the file is missing or not TOML, or a key is no option of the command.
    """
    if path is None or context.resilient_parsing:
        return path
    try:
        record = tomllib.loads(path.read_text())
    except FileNotFoundError as error:
        raise ConfigError(f"no file at {str(path)!r}", hint="--config names a TOML file") from error
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error
    # An option is called as on the command line, whatever the function calls it.
    known = {name.lstrip("-"): param for param in context.command.params for name in param.opts if name != "--config"}
    context.default_map = {}
    for key, value in record.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            raise ConfigError(f"{path}: unknown option {key!r}", hint=f"did you mean {near[0]!r}?" if near else "")
        context.default_map[str(known[key].name)] = _plain(value, f"{path}: {key}")
    return path


def _plain(value: Any, place: str) -> Any:
    if isinstance(value, list):
        return ",".join(str(part) for part in value)
    if isinstance(value, str | int | float):
        return value
    raise ConfigError(f"{place} must be a number, a text, a truth value or a list, got {value!r}")


ConfigOption = Annotated[
    Path | None,
    typer.Option(
        help="TOML file with options by their names, such as policies = ['target', 'router']; those given here win.",
        callback=read_defaults,
        is_eager=True,
    ),
]
