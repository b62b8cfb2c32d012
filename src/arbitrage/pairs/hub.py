"""GGUF files of the Hugging Face hub by name: ``hub:OWNER/NAME/FILE.gguf``."""

import hashlib
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from arbitrage.core.errors import CheckpointError, ConfigError, MissingExtra, first_line
from arbitrage.engines.gguf_files import is_gguf

PREFIX: Final = "hub:"
LOG: Final = logging.getLogger(__name__)
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


def is_hub_name(path: str) -> bool:
    """Whether a model's path names a file of the hub."""
    return path.startswith(PREFIX)


@dataclass(frozen=True, slots=True, kw_only=True)
class HubFile:
    """One file of a repository."""

    repository: str
    """``OWNER/NAME``."""
    file: str
    """Its path in the repository."""

    @classmethod
    def parse(cls, path: str) -> Self:
        """Read ``hub:OWNER/NAME/FILE.gguf``; the file may lie in a folder of the repository.

        Raises:
            ConfigError: If the name has another form.
        """
        owner, _, rest = path.removeprefix(PREFIX).partition("/")
        name, _, file = rest.partition("/")
        if not (owner and name and file and is_gguf(file)) or any(not part.strip(".") for part in path.split("/")):
            raise ConfigError(
                f"path must name a GGUF file of the hub, got {path!r}",
                hint=f"write {PREFIX}OWNER/NAME/FILE.gguf; a checkpoint of transformers is OWNER/NAME",
            )
        return cls(repository=f"{owner}/{name}", file=file)

    def __str__(self) -> str:
        return f"{PREFIX}{self.repository}/{self.file}"

    def local(self) -> Path:
        """The file in the hub's cache; it is downloaded where the cache lacks it, and its checksum compared.

        A file in the cache is used as it is, without a connection.

        Raises:
            CheckpointError: If there is no such repository or file, no connection, or the checksum differs.
            MissingExtra: If ``huggingface_hub`` is not installed.
        """
        try:
            import huggingface_hub
        except ImportError as error:
            raise MissingExtra("hub") from error
        cached = huggingface_hub.try_to_load_from_cache(self.repository, self.file)
        if isinstance(cached, str):
            return Path(cached)
        downloaded = self._download()
        _check_content(downloaded, str(self))
        return downloaded

    def _download(self) -> Path:
        import huggingface_hub
        from huggingface_hub import errors

        LOG.info("downloading %s", self)
        try:
            return Path(huggingface_hub.hf_hub_download(self.repository, self.file))
        except errors.GatedRepoError as error:
            raise self._error(
                f"the repository {self.repository!r} asks for its terms to be accepted",
                f"accept them at https://huggingface.co/{self.repository}, then run `hf auth login`",
            ) from error
        except errors.RepositoryNotFoundError as error:
            raise self._error(
                f"the hub has no repository {self.repository!r}, or it is private",
                "check OWNER/NAME, or run `hf auth login`",
            ) from error
        except errors.LocalEntryNotFoundError as error:
            raise self._error(
                "the file is not in the cache, and the hub cannot be reached",
                "connect to the network once, or download the file elsewhere and give its path",
            ) from error
        except errors.EntryNotFoundError as error:
            raise self._error(
                f"the repository {self.repository!r} has no file {self.file!r}",
                f"choose one from https://huggingface.co/{self.repository}/tree/main",
            ) from error
        except (
            OSError,
            ValueError,
        ) as error:  # Errors of HTTP and of the disk are OSErrors, those of names ValueErrors.
            raise self._error(first_line(error), "start again: the download continues") from error

    def _error(self, cause: str, hint: str) -> CheckpointError:
        return CheckpointError(f"path {str(self)!r}: {cause}", hint=hint)


def local_path(path: str) -> str:
    """A model's path, or where the file of the hub is that it names; see :meth:`HubFile.local`."""
    return str(HubFile.parse(path).local()) if is_hub_name(path) else path


def _check_content(file: Path, name: str) -> None:
    """Compare a downloaded file with its checksum; a wrong one is removed.

    The hub's cache calls the content of a large file by its SHA-256; small files, and caches without links, have none.

    Raises:
        CheckpointError: If they differ.
    """
    content = file.resolve()
    if not _SHA256.fullmatch(content.name):
        return
    with content.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    if digest != content.name:
        file.unlink()
        content.unlink(missing_ok=True)
        raise CheckpointError(
            f"path {name!r}: the downloaded file has the checksum {digest}, expected {content.name}",
            hint="start again: the file is downloaded anew",
        )
