"""Options that several commands share, with what a shell completes."""

from pathlib import Path
from typing import Annotated, Final

import typer

from arbitrage.core.types import Limits
from arbitrage.datasets.hub import NAMED
from arbitrage.pairs.catalogue import shipped_pairs
from arbitrage.policies.table import METHODS

LIMITS: Final = Limits()


def _files(incomplete: str, suffixes: tuple[str, ...]) -> list[str]:
    """Files and folders whose path begins with ``incomplete``; a folder ends with a slash, to continue inside it."""
    folder = Path(incomplete).parent if incomplete and not incomplete.endswith("/") else Path(incomplete or ".")
    try:
        paths = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    except OSError:
        return []
    names = [f"{path}/" for path in paths if path.is_dir()] + [str(path) for path in paths if path.suffix in suffixes]
    return [name for name in names if name.startswith(incomplete)]


def complete_pair(incomplete: str) -> list[str]:
    """Shipped pairs, and TOML files."""
    names = [name for name in shipped_pairs() if name.startswith(incomplete)]
    return names + _files(incomplete, (".toml",))


def complete_method(incomplete: str) -> list[str]:
    """Methods by name; after a comma, the next method of a list."""
    head, comma, last = incomplete.rpartition(",")
    return [f"{head}{comma}{name}" for name in METHODS if name.startswith(last)]


def complete_dataset(incomplete: str) -> list[str]:
    """Benchmarks by name, splits of the tiny world, and files of problems."""
    names = ["tiny:test", "tiny:validation", "tiny:train", "tiny:ood", *NAMED]
    return [name for name in names if name.startswith(incomplete)] + _files(incomplete, (".jsonl", ".parquet"))


PairOption = Annotated[
    str,
    typer.Option(
        help="'tiny' for the shipped models, or a TOML file that names your own.", autocompletion=complete_pair
    ),
]
DATASET_HELP: Final = (
    f"tiny:test, tiny:train:SEED, tiny:ood, …, {', '.join(NAMED)}, hub:OWNER/NAME, or a JSONL or Parquet file."
)
DatasetOption = Annotated[str, typer.Option(help=DATASET_HELP, autocompletion=complete_dataset)]
FieldsOption = Annotated[
    str, typer.Option(help="Columns of a file or hub dataset: question=problem,answer=solution,id=uid.")
]
MaxTokensOption = Annotated[int, typer.Option(help="Most tokens of a solution.")]
MaxStepsOption = Annotated[int, typer.Option(help="Most steps of a solution; each ends at an empty line.")]
SeedOption = Annotated[int, typer.Option(help="Seed of all random numbers of this command.")]
