"""The error tree: every error that a user can meet, with what to do about it."""

from typing import Final, Self

DISTRIBUTION: Final = "arbitrage-llm"
"""The name on the package index; the import name is ``arbitrage``."""


class ArbitrageError(Exception):
    """Base of all errors that this package raises on purpose.

    Args:
        message: What is wrong: the field, its value, the accepted range.
        hint: What the user can do, if it is not in the message.
    """

    is_retryable: bool = False
    """Whether the same call may succeed later."""
    hint: str = ""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint or self.hint

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message} ({self.hint})" if self.hint else message


class ConfigError(ArbitrageError):
    """A setting, argument or file that cannot be used as given."""


class ProblemError(ArbitrageError):
    """A problem that cannot be posed, such as an empty question."""


class MissingExtra(ArbitrageError):
    """A feature needs packages that the base installation leaves out."""

    def __init__(self, extra: str) -> None:
        self.extra = extra
        message = f"a package of the extra {extra!r} is not installed"
        super().__init__(message, hint=f"pip install '{DISTRIBUTION}[{extra}]'")

    def __reduce__(self) -> tuple[type[Self], tuple[str]]:
        """Pickle by the extra's name: it crosses processes."""
        return type(self), (self.extra,)


class CheckpointError(ArbitrageError):
    """Model files that are missing, broken, or of another kind than required."""


class TraceError(ArbitrageError):
    """A trace record that this version cannot read."""


class StoreError(ArbitrageError):
    """A run's folder that cannot be read, written or continued as requested."""


class RowError(ArbitrageError):
    """Training rows that this version cannot read, or that a router cannot learn from."""


class GradingError(ArbitrageError):
    """Answers that cannot be graded because the grading processes do not start."""


class EngineError(ArbitrageError):
    """A generating backend failed."""


class EngineTimeout(EngineError):
    """The backend answered too late; the same request may succeed."""

    is_retryable = True
    hint = "lower the number of problems in flight, or raise the time-out"


class ContextOverflow(EngineError):
    """The prompt leaves no room in the model's context."""

    hint = "shorten the problem, or use a model with a longer context"


class ScorerError(ArbitrageError):
    """A scoring model failed or gave no probability."""


def first_line(error: BaseException) -> str:
    """The first line of a library's error message, or the error's class if it has no message."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
