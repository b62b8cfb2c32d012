"""The role of a model in its pair: the one place that takes a role's name apart."""

from dataclasses import dataclass
from typing import Final, Self

from arbitrage.core.errors import ConfigError

KINDS: Final = ("draft", "target", "prm", "router")
"""The kinds of roles; a pair has at most one model of each, and any number of further routers."""
SCORERS: Final = ("prm", "router")
"""Kinds whose models score steps; the others write them."""


@dataclass(frozen=True, slots=True)
class Role:
    """One role, such as ``draft`` or ``router:second``; ``str(role)`` gives this name back.

    Raises:
        ConfigError: If the kind is unknown, or a model that is no router has a name.
    """

    kind: str
    """From :data:`KINDS`."""
    name: str = ""
    """Of a further router: NAME in ``[routers.NAME]``. Empty for the pair's own model of this kind."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS or (self.name and self.kind != "router"):
            raise ConfigError(f"role must be one of {', '.join(KINDS)} or router:NAME, got {str(self)!r}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a role's name.

        Raises:
            ConfigError: If it names no role.
        """
        kind, _, name = text.partition(":")
        return cls(kind, name)

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}" if self.name else self.kind

    @property
    def is_scorer(self) -> bool:
        """Whether its model scores steps."""
        return self.kind in SCORERS

    @property
    def table(self) -> str:
        """The table of the configuration file that describes its model: ``routers.second`` for ``router:second``."""
        return f"{self.kind}s.{self.name}" if self.name else self.kind

    @property
    def file_stem(self) -> str:
        """The name as a part of file names: ``router-second`` for ``router:second``."""
        return f"{self.kind}-{self.name}" if self.name else self.kind
