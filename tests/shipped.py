"""What tests of commands on the shipped models share: pairs with other routers, training options, earlier files."""

from pathlib import Path

from arbitrage.tiny import WEIGHTS
from command_line import command

EARLIER = Path(__file__).parent / "data" / "b6ccee5"
"""Rows, labels and a probe of that commit."""
TRAIN = (
    *("--epochs", "2", "--learning-rate", "3e-4", "--batch-size", "8", "--device-batch-size", "8"),
    *("--margin", "0.05", "--save-steps", "2"),
)
"""Options of a short ``train-router``."""


def pair_with(router, folder):
    """A configuration of the shipped draft and target with another router."""
    models = {"draft": WEIGHTS / "draft", "target": WEIGHTS / "target", "router": router}
    path = folder / "pair.toml"
    tables = [f'[{role}]\npath = "{checkpoint}"\nname = "tiny-{role}"\n' for role, checkpoint in models.items()]
    path.write_text("".join(tables))
    return path


def serves(router, folder):
    """Whether a pair that names the router's folder solves a problem with it."""
    pair = pair_with(router, folder)
    status, out, err = command("solve", "--pair", pair, "Solve for x: 3x+4=25.")
    assert status == 0, err
    return "router(draft)" in out
