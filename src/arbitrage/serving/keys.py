"""API keys: who may ask."""

import hmac
import os
from dataclasses import dataclass, field
from typing import Final, Self

from arbitrage.core.errors import ConfigError
from arbitrage.serving.errors import APIError

_SCHEME: Final = "bearer "


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys that the server accepts; without any it accepts everyone."""

    values: tuple[bytes, ...] = field(default=(), repr=False)

    @classmethod
    def from_env(cls, name: str) -> Self:
        """Read keys from an environment variable, separated by commas or white space.

        Raises:
            ConfigError: If the variable is not set or holds no key.
        """
        text = os.environ.get(name, "")
        keys = tuple(key.encode() for key in text.replace(",", " ").split())
        if not keys:
            raise ConfigError(
                f"the environment variable {name} holds no API key", hint="set it, keys with commas between"
            )
        return cls(keys)

    def owner(self, authorization: str | None) -> str:
        """Which key a request bears; the time does not depend on how much of it is right.

        Args:
            authorization: The header of this name.

        Returns:
            A name for the key that does not reveal it; empty where no keys are used.

        Raises:
            APIError: If it bears none of the keys.
        """
        if not self.values:
            return ""
        header = authorization or ""
        key = header[len(_SCHEME) :].strip() if header.lower().startswith(_SCHEME) else ""
        matches = [hmac.compare_digest(key.encode(errors="replace"), value) for value in self.values]
        if not any(matches):
            problem = "is wrong" if key else "is missing"
            message = f"the API key {problem}: send it as 'Authorization: Bearer KEY'"
            raise APIError(401, message, type="authentication_error", code="invalid_api_key")
        return f"key-{matches.index(True)}"
