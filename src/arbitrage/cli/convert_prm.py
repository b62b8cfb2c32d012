"""``arbitrage convert-prm``: a Skywork PRM for servers that know no value heads."""

from pathlib import Path
from typing import Annotated

import typer


def convert_prm(
    source: Annotated[Path, typer.Argument(help="Folder of a Skywork-o1-Open-PRM checkpoint (safetensors).")],
    out: Annotated[Path, typer.Argument(help="Folder to write; must not exist yet.")],
) -> None:
    """Convert a Skywork PRM into a sequence-classification checkpoint.

    The value head becomes the classifier's, the language head and the remote code are left out, tokenizer and weights
    stay as they are. Scores do not change where the server reads `score.bias`, as vLLM does.
    """
    from arbitrage.scorers.hf_convert import convert_skywork  # Heavy: only when it is asked for.

    made = convert_skywork(source, out)
    typer.echo(f"{made.folder}: {made.architecture}, {made.num_tensors} tensors, {made.num_bytes / 1e9:.2f} GB")
    typer.echo(f'in a pair:  [prm]\n            path = "{made.folder}"\n            format = "skywork"')
    typer.echo(f"with vLLM:  vllm serve {made.folder} --runner pooling --pooler-config.task classify")
