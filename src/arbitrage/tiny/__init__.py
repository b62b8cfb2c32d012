"""The self-trained demo pair: problem generator with a step checker, training recipe, shipped weights."""

from pathlib import Path
from typing import Final

WEIGHTS: Final = Path(__file__).parent / "weights"
"""Folder of the shipped checkpoints: draft, target, prm, router."""

MARKS: Final = {"draft": "<|draft|>", "target": "<|target|>"}
"""The routers' history annotation: one token for each author. The pair's file in ``pairs/shipped`` has the same."""
