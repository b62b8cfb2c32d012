"""``arbitrage export-gguf``: a checkpoint as one GGUF file for llama.cpp, or a GGUF file in fewer bits."""

from pathlib import Path
from typing import Annotated

import typer

from arbitrage.engines.gguf_files import is_gguf


def export_gguf(
    model: Annotated[
        Path, typer.Argument(help="Folder of a Llama checkpoint in the format of transformers, or any GGUF file.")
    ],
    out: Annotated[Path, typer.Argument(help="The file to write, NAME.gguf; an existing file is replaced.")],
    kind: Annotated[
        str,
        typer.Option(
            "--type", help="f32, f16, or a quantisation of llama.cpp such as q8_0, q4_k_m, q4_0, q3_k_l or q2_k."
        ),
    ] = "f16",
) -> None:
    """Write a Llama checkpoint, or a GGUF file in other bits, as a GGUF file.

    The file holds the tokenizer too. A file in fewer bits can be the draft for its original: name it as the draft of a
    pair. Quantisation needs llama.cpp. Weights of a GGUF file that are quantised already are quantised anew.
    """
    if model.is_file() or is_gguf(str(model)):
        from arbitrage.engines.llamacpp_quantise import requantise

        requantise(model, out, kind)
    else:
        from arbitrage.engines import gguf_export

        gguf_export.export_gguf(model, out, kind)
    typer.echo(f"{out}: {out.stat().st_size / 1e6:.1f} MB, {kind.lower()}")
