"""`jaxdiff convert --model DIR --out model.safetensors`."""

import dataclasses
import shutil
import warnings
from pathlib import Path
from typing import Literal

import jax
import tyro

from jaxdiff import experiment, loading
from jaxdiff.cli.sample import weighted
from jaxdiff.pretrained import lora, pixels, single_file
from jaxdiff.pretrained.read import Bundle
from jaxdiff.pretrained.write import write_directory


@dataclasses.dataclass(frozen=True)
class Args:
    """Writes a model in another format, as other tools read it.

    Attributes:
      model: a directory with model_index.json; a .safetensors or .ckpt file of Stable Diffusion; or a run of `jaxdiff
        train` in pixels without text, or one of its checkpoints, whose averaged weights are taken.
      out: a new directory, for diffusers; or a new file that ends in .safetensors, in Stable Diffusion's own layout.
      dtype: of the weights; by default as they are.
      variant: fp16 takes such weights where the directory has them.
      tokenizer: directory of the tokenizer for a model that is one file.
      prediction: what a Stable Diffusion 2 that is one file predicts.
      vae: directory of an autoencoder to take instead of the model's.
      lora: files or directories of LoRAs to add to the weights, each as PATH or PATH:WEIGHT.
      textual_inversion: files of new words to add to tokenizer and text encoder; the model becomes a directory.
    """

    model: Path
    out: Path
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    variant: str | None = None
    tokenizer: Path | None = None
    prediction: Literal["epsilon", "v_prediction"] | None = None
    vae: Path | None = None
    lora: tuple[str, ...] = ()
    textual_inversion: tuple[Path, ...] = ()


def main(argv: list[str]) -> None:
    """Reads, and writes under another name that becomes `out` when all is there."""
    args = tyro.cli(Args, args=argv, prog="jaxdiff convert")
    check(args)
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = lambda message, *_, **__: print(message, flush=True)
        with jax.default_device(jax.local_devices(backend="cpu")[0]):
            bundle = read(args)
    for name, part in bundle.components.items():
        leaves = jax.tree.leaves(part.params)
        kinds = ", ".join(sorted({str(leaf.dtype) for leaf in leaves}))
        count, size = (sum(getattr(leaf, what) for leaf in leaves) for what in ("size", "nbytes"))
        print(f"{name}: {part.kind}, {count / 1e6:.1f}M numbers of {kinds}, {size / 1e9:.2f} GB", flush=True)
    unfinished = args.out.with_name(f"{args.out.name}.unfinished")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    try:
        if args.out.suffix == ".safetensors":
            single_file.write(bundle, unfinished)
        else:
            write_directory(bundle, unfinished, args.model if args.model.is_dir() else None)
        unfinished.rename(args.out)
    finally:
        if unfinished.is_dir():
            shutil.rmtree(unfinished)
        unfinished.unlink(missing_ok=True)
    print(f"written: {args.out}")


def check(args: Args) -> None:
    """Refuses, before anything is read, what cannot be written."""
    if args.out.exists():
        raise ValueError(f"{args.out} exists: nothing is overwritten; choose another --out, or remove it")
    one = args.out.suffix == ".safetensors"
    if args.out.suffix in (".ckpt", ".bin", ".pt", ".pth"):
        raise ValueError(f"out is {args.out}: expected a directory, or a file that ends in .safetensors")
    if args.textual_inversion and one:
        raise ValueError("a single file has no room for new words: give a directory as --out")
    if args.model.is_file() and not one and not args.tokenizer:
        raise ValueError(
            f"{args.model} is one file, which has no tokenizer, and a directory needs one: pass --tokenizer, the "
            "directory with CLIP's vocab.json and merges.txt"
        )


def read(args: Args) -> Bundle:
    """The networks that are to be written, on the host.

    Raises:
      FileNotFoundError: if there is no model.
      ValueError: if files are broken, classes not supported, or options do not fit the model.
    """
    if not args.model.is_file() and not (args.model / "model_index.json").is_file():
        names = ("variant", "tokenizer", "prediction", "vae", "lora", "textual_inversion")
        if given := [f"--{name.replace('_', '-')}" for name in names if getattr(args, name)]:
            raise ValueError(f"{args.model} is a run of `jaxdiff train`, which takes no {', '.join(given)}")
        run = experiment.open_run(args.model)
        averaged = jax.tree.map(lambda x: x.astype(args.dtype or x.dtype), run.weights)
        return pixels.published(run.config.task.bundle(run.assets, averaged))
    bundle = loading.read_bundle(
        args.model,
        dtype=args.dtype,
        variant=args.variant,
        tokenizer=args.tokenizer,
        prediction=args.prediction,
        parts={"vae": args.vae} if args.vae else {},
        textual_inversions=args.textual_inversion,
    )
    pairs = [weighted(text) for text in args.lora]
    loras = [lora.read(file, bundle.components) for file, _ in pairs]
    return loading.fused(bundle, loras, [weight for _, weight in pairs])
