"""The work of `jaxdiff convert`: reads a model, and writes it in another format."""

import dataclasses
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import jax

from jaxdiff import experiment
from jaxdiff.cli.convert import Args
from jaxdiff.pipelines.imagined import has_prior
from jaxdiff.pretrained import dalle_mini, files, glide, hub, latent_model, lora, pixels, single_file, single_process
from jaxdiff.pretrained.bundle import fused, read_bundle
from jaxdiff.pretrained.read import Bundle
from jaxdiff.pretrained.write import write_directory
from jaxdiff.tasks import lora as lora_task

_NO_ENDINGS = (".ckpt", ".bin", ".pt", ".pth", ".onnx", ".gguf", ".msgpack", ".json", ".yaml", ".zip", ".png")


def run(args: Args) -> None:
    """Reads, and writes under another name that becomes `out` when all is there."""
    path = hub.local(args.model, args.revision, variant=args.variant, without=())
    args = dataclasses.replace(args, model=path)
    check(args)
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        write = writer(args)
    unfinished = args.out.with_name(f"{args.out.name}.unfinished")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    try:
        write(unfinished)
        unfinished.replace(args.out)
    finally:
        if unfinished.is_dir():
            shutil.rmtree(unfinished)
        unfinished.unlink(missing_ok=True)
    print(f"written: {args.out}")


def check(args: Args) -> None:
    """Refuses, before anything is read, what cannot be written."""
    one = args.out.suffix == ".safetensors"
    if args.out.suffix.lower() in _NO_ENDINGS:
        raise ValueError(f"out is {args.out}: expected a directory, or a file that ends in .safetensors")
    check_out(args.out)
    if args.out.exists() and args.model.exists() and args.out.samefile(args.model):
        raise ValueError(f"{args.out} is the model itself: choose another --out")
    lora.parse(args.lora)  # refuses weights that are not finite
    if args.textual_inversion and one:
        raise ValueError("a single file has no room for new words: give a directory as --out")
    if args.model.is_file() and not one and glide.found(args.model):
        raise ValueError(
            f"{args.model} is a model of GLIDE, which has no directories: give --out that ends in .safetensors"
        )
    if args.model.is_file() and not one and not args.tokenizer:
        raise ValueError(
            f"{args.model} is one file, which has no tokenizer, and a directory needs one: pass --tokenizer, the "
            "directory with CLIP's vocab.json and merges.txt"
        )


def check_out(out: Path) -> None:
    """Refuses an --out that cannot be written, or that holds what nobody asked to lose; says what is overwritten.

    A file that this program wrote gives way to its next result; any other, and a directory with something in it, stays.
    """
    above = next(folder for folder in (out.absolute().parent, *out.absolute().parent.parents) if folder.exists())
    if not above.is_dir():
        raise NotADirectoryError(f"{out}: {above} is a file, and no directory can be made in it")
    if not os.access(above, os.W_OK | os.X_OK):
        raise PermissionError(f"{out}: nothing may be written in {above}")
    if not out.exists():
        return
    if out.is_dir() if out.suffix != ".safetensors" else _ours(out):
        if out.is_dir() and any(out.iterdir()):
            raise ValueError(f"{out} exists: nothing is overwritten, and it is not empty; choose another --out")
        if out.is_file():
            print(f"{out} is overwritten", flush=True)
        return
    raise ValueError(
        f"{out} exists: nothing is overwritten that was not written here; choose another --out, or remove it"
    )


def _ours(path: Path) -> bool:
    """Returns whether a file was written by `jaxdiff convert`."""
    try:
        return path.is_file() and single_process.ours(files.metadata(path))
    except files.FileError:
        return False


def writer(args: Args) -> Callable[[Path], None]:
    """Reads the networks, onto the host, and returns what writes them.

    Raises:
      FileNotFoundError: if there is no model.
      ValueError: if files are broken, classes not supported, or options do not fit the model.
    """
    found = read(args)
    if not isinstance(found, Bundle):
        return found
    if args.layout != "diffusers":
        raise ValueError(f"--layout {args.layout} is of runs of a LoRA, and {args.model} is a model: leave it out")
    for name, part in found.components.items():
        leaves = jax.tree.leaves(part.params)
        kinds = ", ".join(sorted({str(leaf.dtype) for leaf in leaves}))
        count, size = (sum(getattr(leaf, what) for leaf in leaves) for what in ("size", "nbytes"))
        print(f"{name}: {part.kind}, {count / 1e6:.1f}M numbers of {kinds}, {size / 1e9:.2f} GB", flush=True)
    if args.out.suffix == ".safetensors":
        return lambda to: (glide if found.kind == glide.KIND else single_file).write(found, to)
    return lambda to: write_directory(found, to, args.model if args.model.is_dir() else None)


def read(args: Args) -> Bundle | Callable[[Path], None]:
    """Returns what is to be written: the networks of a model, or what writes the part that a run has trained."""
    if not args.model.is_file() and not (args.model / "model_index.json").is_file():
        names = ("variant", "tokenizer", "prediction", "vae", "lora", "textual_inversion")
        if wrong := [f"--{name.replace('_', '-')}" for name in names if getattr(args, name)]:
            raise ValueError(f"{args.model} is a run of `jaxdiff train`, which takes no {', '.join(wrong)}")
        if dalle_mini.find(args.model) is not None:
            return dalle_mini.read(args.model, dtype=args.dtype)
        opened = experiment.open_run(args.model)
        averaged = jax.tree.map(lambda x: x.astype(args.dtype or x.dtype), opened.weights)
        if (alone := opened.config.task.apart(opened.assets, averaged, args.out, args.layout)) is not None:
            return alone
        bundle = opened.config.task.bundle(opened.assets, averaged)
        if has_prior(bundle):
            raise ValueError(f"{args.model} is a prior of our own training: diffusers has no class for its process")
        if "unet" not in bundle.components or bundle.native is None:
            return bundle
        return (latent_model if "vae" in bundle.components else pixels).published(bundle)
    bundle = read_bundle(
        args.model,
        dtype=args.dtype,
        variant=args.variant,
        tokenizer=args.tokenizer,
        prediction=args.prediction,
        parts={"vae": args.vae} if args.vae else {},
        textual_inversions=args.textual_inversion,
        without=("tokenizer",) if args.model.is_file() and not args.tokenizer else (),
    )
    named = lora.parse(args.lora)
    loras = [lora_task.read(file, bundle.components) for file, _ in named]
    return fused(bundle, loras, [weight for _, weight in named])
