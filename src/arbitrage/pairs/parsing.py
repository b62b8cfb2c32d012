"""From TOML tables to frozen dataclasses: keys and types are checked, near keys are suggested."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields
from types import NoneType
from typing import Any, Final, TypeVar, get_args, get_type_hints

from arbitrage.core.errors import ConfigError

T = TypeVar("T")

TYPES: Final[Mapping[Any, tuple[type | tuple[type, ...], str]]] = {
    str: (str, "a string"),
    int: (int, "a whole number"),
    float: ((int, float), "a number"),
    bool: (bool, "true or false"),
}
"""For the type of a field: the types that its value may have, and how an error calls them."""


def parse(schema: type[T], record: Mapping[str, Any], where: str) -> T:
    """Make a dataclass of a table.

    Args:
        schema: A dataclass. Fields of a type in :data:`TYPES`, ``tuple[str, ...]``, ``str | tuple[str, ...]``,
            ``Mapping[str, str]``, or one of these or None are checked here; the values of others are parsed already.
        record: The table.
        where: File and table, for errors.

    Raises:
        ConfigError: If a key is unknown or missing, a value is of the wrong type, or the dataclass refuses it.
    """
    specs, types = fields(schema), get_type_hints(schema)  # type: ignore[arg-type]
    check_keys(record, [spec.name for spec in specs], where)
    values = {key: _value(types[key], value, f"{where}: {key}") for key, value in record.items()}
    required = {spec.name for spec in specs if spec.default is MISSING and spec.default_factory is MISSING}
    if missing := sorted(required - set(record)):
        raise ConfigError(f"{where}: missing {', '.join(missing)}")
    try:
        return schema(**values)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error.args[0]}", hint=error.hint) from error


def check_keys(record: Iterable[str], allowed: Iterable[str], where: str) -> None:
    """Refuse unknown keys.

    Raises:
        ConfigError: With the nearest known key as a suggestion.
    """
    names = list(allowed)
    for key in record:
        if key not in names:
            near = difflib.get_close_matches(key, names, n=1)
            raise ConfigError(f"{where}: unknown key {key!r}", hint=f"did you mean {near[0]!r}?" if near else "")


def table(value: Any, where: str, hint: str = "") -> Mapping[str, Any]:
    """The value if it is a table.

    Raises:
        ConfigError: If it is not.
    """
    if not isinstance(value, dict):
        raise ConfigError(f"{where} must be a table, got {value!r}", hint=hint)
    return value


def strings(value: Any, where: str) -> tuple[str, ...]:
    """A list of strings as a tuple.

    Raises:
        ConfigError: If it is something else.
    """
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise ConfigError(f"{where} must be a list of strings, got {value!r}")
    return tuple(value)


def _value(annotation: Any, value: Any, where: str) -> Any:
    value_type = _without_none(annotation)
    if value_type == str | tuple[str, ...] and not isinstance(value, list):
        value_type = str
    if value_type in (tuple[str, ...], str | tuple[str, ...]):
        return strings(value, where)
    if value_type == Mapping[str, str]:
        if not isinstance(value, dict) or not all(isinstance(word, str) for word in value.values()):
            raise ConfigError(f"{where} must be a table of strings, got {value!r}", hint="put numbers in quotes")
        return value
    accepted, words = TYPES.get(value_type, (object, ""))
    if not isinstance(value, accepted) or (isinstance(value, bool) and value_type in (int, float)):
        raise ConfigError(f"{where} must be {words}, got {value!r}")
    return value


def _without_none(annotation: Any) -> Any:
    """``int`` for ``int | None``; other types as they are."""
    parts = get_args(annotation)
    return next(part for part in parts if part is not NoneType) if NoneType in parts else annotation
