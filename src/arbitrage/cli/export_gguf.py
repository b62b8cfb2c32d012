"""``arbitrage export-gguf``: a checkpoint as one GGUF file for llama.cpp."""

from pathlib import Path
from typing import Annotated

import typer


def export_gguf(
    model: Annotated[Path, typer.Argument(help="Folder of a Llama checkpoint in the format of transformers.")],
    out: Annotated[Path, typer.Argument(help="The file to write, NAME.gguf; an existing file is replaced.")],
    kind: Annotated[
        str, typer.Option("--type", help="f16, f32, q8_0, q4_k_m or q3_k_l; the last three need llama.cpp.")
    ] = "f16",
) -> None:
    """Write a Llama checkpoint as a GGUF file.

    The file holds the tokenizer too. The types q8_0, q4_k_m and q3_k_l quantise the weights. A quantised file can be
    the draft for its original model: name it as the draft of a pair.
    """
    from arbitrage.engines import gguf_export

    gguf_export.export_gguf(model, out, kind)
    typer.echo(f"{out}: {out.stat().st_size / 1e6:.1f} MB, {kind}")
