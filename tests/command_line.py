"""The command line in this process: what a new process prints and returns, without the seconds that imports take."""

import contextlib
import io
import sys
import warnings
from pathlib import Path

from arbitrage.cli.main import run


def command(*arguments: object, cwd: Path | None = None) -> tuple[int, str, str]:
    """Run ``arbitrage`` with arguments: (exit status, standard output, standard error)."""
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["arbitrage", *map(str, arguments)]
    try:
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            contextlib.chdir(cwd or Path.cwd()),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("default")  # A new process prints them.
            run()
    except SystemExit as end:
        return int(end.code or 0), out.getvalue(), err.getvalue()
    finally:
        sys.argv = before
    return 0, out.getvalue(), err.getvalue()
