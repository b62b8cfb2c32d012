"""Tables as values: columns are described once, and rendered for terminals, as HTML and as Markdown."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final, Generic, Self, TypeVar

T = TypeVar("T")
NONE: Final = "–"
"""A cell without a figure."""


@dataclass(frozen=True, slots=True)
class Column(Generic[T]):
    """One column: its name, and how a record's cell is written."""

    name: str
    cell: Callable[[T], str]
    needs_all: bool = False
    """Whether the column is left out unless every record has the figure, rather than any."""
    terminal: str = ""
    """Its name in terminals, which have less room; empty for a column that is left out there."""
    terminal_unit: str = ""
    """Written after each figure in terminals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table of texts."""

    title: str
    head: Sequence[str]
    """Names of the columns. The first column is aligned left, the others right."""
    body: Sequence[Sequence[str]]
    stressed: Collection[int] = ()
    """Numbers of the rows to stress."""

    @classmethod
    def of(
        cls,
        title: str,
        columns: Sequence[Column[T]],
        records: Sequence[T],
        *,
        is_stressed: Callable[[T], bool] = lambda record: False,
        hides_empty: bool = False,
    ) -> Self:
        """Write records into a table.

        Args:
            title: The table's title.
            columns: The columns.
            records: One for each row.
            is_stressed: Whether to stress a record's row.
            hides_empty: Whether to leave out columns without figures; see :attr:`Column.needs_all`.
        """
        shown = [column for column in columns if not hides_empty or _has_figures(column, records)]
        return cls(
            title=title,
            head=[column.name for column in shown],
            body=[[column.cell(record) for column in shown] for record in records],
            stressed={number for number, record in enumerate(records) if is_stressed(record)},
        )

    @classmethod
    def for_terminal(cls, title: str, columns: Sequence[Column[T]], records: Sequence[T]) -> Self:
        """Write records into a table for a terminal: the columns with a name there, with or without figures."""
        shown = [column for column in columns if column.terminal]

        def cell(column: Column[T], record: T) -> str:
            text = column.cell(record)
            return text if text == NONE else text + column.terminal_unit

        return cls(
            title=title,
            head=[column.terminal for column in shown],
            body=[[cell(column, record) for column in shown] for record in records],
        )

    def markdown(self) -> list[str]:
        """The table as lines of Markdown."""
        rows = [" | ".join(("", *cells, "")).strip() for cells in (self.head, *self.body)]
        return [rows[0], "|" + "---|" * len(self.head), *rows[1:]]


def _has_figures(column: Column[T], records: Sequence[T]) -> bool:
    return (all if column.needs_all else any)(column.cell(record) != NONE for record in records)
