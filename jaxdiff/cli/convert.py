"""`jaxdiff convert --model DIR --out model.safetensors`.

What is slow to import is imported when it is needed, so that --help and mistakes are answered at once.
"""

import dataclasses
from pathlib import Path
from typing import Literal

import tyro


@dataclasses.dataclass(frozen=True)
class Args:
    """Writes a model in another format, as other tools read it.

    Attributes:
      model: a directory with model_index.json; a name on the Hugging Face hub, ORG/NAME; a .safetensors or .ckpt file
        of Stable Diffusion; or a run of `jaxdiff
        train`, or one of its checkpoints, whose averaged weights are taken: of an autoencoder, in pixels without text,
        in latents without a condition, or in those of a KL autoencoder conditioned on a frozen CLIP's states; of a
        model that was trained on; or of a LoRA, which is written by itself.
      out: a new directory, for diffusers; or a file that ends in .safetensors, in Stable Diffusion's own layout. Only a
        file that this program wrote is overwritten.
      dtype: type of the weights; by default unchanged.
      variant: read weight files of this variant, such as fp16, where the directory has them.
      revision: branch, tag or commit of a name on the hub; by default main, as it is now.
      tokenizer: directory of the tokenizer, for a model in a single file.
      prediction: prediction type, for a Stable Diffusion 2 in a single file.
      vae: directory or file of an autoencoder to use instead of the model's.
      lora: files or directories of LoRAs to add to the weights, each PATH or PATH:WEIGHT.
      textual_inversion: files of new words to add to tokenizer and text encoder; the model becomes a directory.
      layout: whose names a LoRA's tensors have, those of diffusers and PEFT, or of kohya's scripts.
    """

    model: Path
    out: Path
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    variant: str | None = None
    revision: str | None = None
    tokenizer: Path | None = None
    prediction: Literal["epsilon", "v_prediction"] | None = None
    vae: Path | None = None
    lora: tuple[str, ...] = ()
    textual_inversion: tuple[Path, ...] = ()
    layout: Literal["diffusers", "kohya"] = "diffusers"


def main(argv: list[str]) -> None:
    """Reads, and writes under another name that becomes `out` when all is there."""
    args = tyro.cli(Args, args=argv, prog="jaxdiff convert")
    from jaxdiff.cli import convert_run

    convert_run.run(args)
