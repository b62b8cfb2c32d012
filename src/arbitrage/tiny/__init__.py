"""The self-trained demo pair: problem generator with a step checker, training recipe, shipped weights."""

from pathlib import Path
from typing import Final

WEIGHTS: Final = Path(__file__).parent / "weights"
"""Folder of the shipped checkpoints: draft, target, prm, router."""
