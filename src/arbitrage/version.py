"""The version of the installed distribution."""

from importlib import metadata
from typing import Final

from arbitrage.core.errors import DISTRIBUTION


def _version() -> str:
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:  # The source tree alone, not installed.
        return "0+unknown"


__version__: Final = _version()
