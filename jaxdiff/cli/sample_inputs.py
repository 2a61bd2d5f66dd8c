"""Options of a pipeline's call from a command line of `jaxdiff sample`, with pictures read; its keys and noise."""

from __future__ import annotations

import dataclasses
import math
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxdiff.cli.sample_args import OPTIONS, Args, arg_name

if TYPE_CHECKING:
    import numpy as np

    from jaxdiff.pipelines.diffusion import DiffusionPipeline
    from jaxdiff.pipelines.options import Options


def given_options(args: Args, known: Collection[str]) -> dict[str, Any]:
    """Returns those options of a pipeline, of `known`, that were given: it has defaults of its own."""
    changed = {f.name for f in dataclasses.fields(Args) if getattr(args, f.name) != f.default}
    return {name: value for name, value in options_of(args, known).items() if arg_name(name) in changed}


def options_of(args: Args, known: Collection[str] | None = None) -> dict[str, Any]:
    """Returns the options of a call that were given, by their names in `known`; pictures are read.

    `known` are by default those of diffusion models.
    """
    import numpy as np

    from jaxdiff.data.picture import decode
    from jaxdiff.pipelines import canvas
    from jaxdiff.pipelines.options import Options

    known = {field.name for field in dataclasses.fields(Options)} if known is None else known
    named = {OPTIONS.get(f.name, f.name): getattr(args, f.name) for f in dataclasses.fields(Args)}
    options = {name: value for name, value in named.items() if name in known and value not in (None, ())}
    for name in ("image", "original", "depth", "picture", "towards"):
        if name in options:
            latents = name == "image" and options[name].suffix == ".npy"
            options[name] = read_noise(options[name], "latents") if latents else decode(options[name])[None]
    if "blend" in options:
        options["blend"] = tuple(map(blended, args.blend))
    if args.mask:
        options["mask"] = (decode(args.mask)[None].mean(-1, keepdims=True) >= 127.5).astype(np.float32)
    if args.hint:
        options["hints"] = [decode(path)[None] for path in args.hint]
    if args.outpaint:
        sides = dict(zip(("left", "right", "top", "bottom"), args.outpaint, strict=True))
        options["image"], options["mask"] = canvas.outpaint(options["image"], **sides)
    if args.guidance == 1:  # half the work for the same pictures
        options["guidance"] = None
    if args.init_noise:
        options["init_noise"] = read_noise(args.init_noise)
    return options


def blended(word: str) -> tuple[np.ndarray | str, float]:
    """Returns what a word of --blend names, a picture uint8 [1 h w 3] or a text, and its weight.

    Raises:
      ValueError: if it has no weight.
      FileNotFoundError: if it looks like a picture's file, and there is none.
    """
    from jaxdiff.data.captions import SUFFIXES
    from jaxdiff.data.picture import decode

    part, _, weight = word.rpartition(":")
    try:
        number = float(weight)
    except ValueError:
        number = math.nan
    if not part or not math.isfinite(number):
        raise ValueError(f"--blend {word!r} has no weight: expected FILE:WEIGHT or TEXT:WEIGHT, such as cat.png:0.5")
    if Path(part).suffix.lower() in SUFFIXES or Path(part).is_file():
        return decode(Path(part))[None], number
    return part, number


def read_noise(path: Path, what: str = "noise") -> np.ndarray:
    """Returns the array of a .npy file.

    Raises:
      ValueError: if it is not such a file.
    """
    import numpy as np

    if zipfile.is_zipfile(path):
        raise ValueError(f"{path} is a .npz archive: expected a .npy file with one array")
    try:
        return np.load(path, allow_pickle=False)
    except OSError:
        raise
    except Exception as error:  # damaged headers raise a dozen kinds, from SyntaxError to MemoryError
        why = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path} is not a .npy file of {what}: {why[:200]}") from error


def keys_of(args: Args) -> Any:
    """Returns a key for each picture, the same ones for each prompt."""
    import jax
    import numpy as np

    from jaxdiff.pipelines.inputs import root_key

    root = root_key(args.seed)
    return jax.vmap(lambda i: jax.random.fold_in(root, i))(np.tile(np.arange(args.num), len(args.prompt)))


def noise_of(args: Args, pipe: DiffusionPipeline, options: Options, count: int) -> np.ndarray | None:
    """Returns the noise that pictures start from, where it is not that of their keys."""
    import jax
    import numpy as np

    from jaxdiff.pipelines import edit
    from jaxdiff.pipelines.inputs import root_key

    if args.interpolate is not None:
        a, b = (
            pipe.noise(jax.random.fold_in(root_key(seed), 0)[None], options.height, options.width)[0]
            for seed in (args.seed, args.interpolate)
        )
        return np.tile(edit.between(a, b, args.num), (len(args.prompt), 1, 1, 1))
    if options.init_noise is not None and len(options.init_noise) != count:
        raise ValueError(
            f"{args.init_noise} has noise for {len(options.init_noise)} pictures, and {count} are wanted: "
            f"{len(args.prompt)} prompts, --num {args.num} of each"
        )
    return options.init_noise
