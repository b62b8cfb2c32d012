"""Pairs of the shipped draft and target with other routers."""

from arbitrage.tiny import WEIGHTS
from command_line import command


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
