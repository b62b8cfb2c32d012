"""``arbitrage convert-prm``: a Skywork PRM as a checkpoint that servers can load."""

from pathlib import Path
from typing import Annotated

import typer


def convert_prm(
    source: Annotated[Path, typer.Argument(help="Folder of a Skywork-o1-Open-PRM checkpoint (safetensors).")],
    out: Annotated[Path, typer.Argument(help="Folder to write; must not exist yet.")],
) -> None:
    """Convert a Skywork PRM into a classifier.

    The result is a sequence-classification checkpoint. The value head becomes the classification head. The language
    head and the remote code are left out. Tokenizer and all other weights are copied. A server that reads `score.bias`,
    as vLLM does, gives the same scores.
    """
    from arbitrage.scorers.hf_convert import convert_skywork  # Imports safetensors, which is in an extra.

    converted = convert_skywork(source, out)
    size = f"{converted.num_bytes / 1e9:.2f} GB"
    typer.echo(f"{converted.folder}: {converted.architecture}, {converted.num_tensors} tensors, {size}")
    typer.echo(f'in a pair:  [prm]\n            path = "{converted.folder}"\n            format = "skywork"')
    typer.echo(f"with vLLM:  vllm serve {converted.folder} --runner pooling --pooler-config.task classify")
