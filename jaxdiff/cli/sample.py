"""`jaxdiff sample --model DIR --prompt "a red heart" ...`.

What is slow to import is imported where it is used, so that --help and mistakes are answered at once.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from jaxdiff import __version__
from jaxdiff.cli import out
from jaxdiff.cli.dry_run_args import How, split
from jaxdiff.cli.main import HELP, compilation_cache
from jaxdiff.cli.sample_args import GENERAL, OPTIONS, OTHERS, RANKED, Args, arg_name, narrowed, own_options
from jaxdiff.cli.sample_inputs import given_options, keys_of, noise_of, options_of

if TYPE_CHECKING:
    import numpy as np

    from jaxdiff.pipelines.diffusion import DiffusionPipeline
    from jaxdiff.pipelines.options import Options
    from jaxdiff.pipelines.pipeline import Pipeline


def main(argv: list[str]) -> None:
    """Samples and writes the grid."""
    words = [word for word in argv if word not in HELP]
    _check_once(words)
    asked = len(words) < len(argv)
    how, words = split(words)
    if asked and not any(word.split("=")[0] == "--model" for word in words):
        words = ["--help"]
    args, unknown = tyro.cli(Args, args=words, prog="jaxdiff sample", return_unknown_args=True)
    if asked:
        tyro.cli(takes(located(args)), args=["--help"], prog="jaxdiff sample")
    if unknown and _alone(located(args)):  # a pipeline of another kind may know them
        tyro.cli(Args, args=words, prog="jaxdiff sample")
    check(args)
    if how.dry_run:
        dry_run(located(args), how)
        return
    compilation_cache()
    sample(args, unknown)


def dry_run(args: Args, how: How) -> None:
    """Says what sampling would take; the options of the call that need files are not in it."""
    from jaxdiff.cli.progress import stages
    from jaxdiff.dryrun import sampling
    from jaxdiff.metrics import chips

    values = {f.name: getattr(args, f.name) for f in dataclasses.fields(Args)}
    known = (*OTHERS, "steps", "sampler", "grid", "guidance", "negative_prompt", "height", "width", "batch_size", "eta")
    if wrong := [f.name for f in dataclasses.fields(Args) if values[f.name] != f.default and f.name not in known]:
        raise ValueError(f"--dry-run does not know --{wrong[0].replace('_', '-')}: leave it out")
    spec = _spec(args)
    if spec == "pmap":
        raise ValueError("--dry-run describes meshes: leave --strategy pmap out")
    topology = chips.parse(how.topology, how.slices) if how.topology else None
    pipe = sampling.outline(Path(args.model))
    count = min(args.batch_size, args.num * len(args.prompt))
    with stages(f"dry run of {args.model}") as tell:
        lines: list[str] = []
        try:
            options = pipe.options(**options_of(args))
            sampling.run(pipe, spec, count, topology, compile=how.compile, options=options, say=lines.append, tell=tell)
        finally:
            print("", *lines, sep="\n", flush=True)


def located(args: Args, *, weights: bool = False) -> Args:
    """Returns the arguments with a path for a name on the hub, whose files are in its cache from then on."""
    from jaxdiff.pretrained import hub

    skipped = () if args.safety else ("safety_checker",)
    path = hub.local(args.model, args.revision, variant=args.variant, without=skipped, weights=weights)
    return args if path == Path(args.model) else dataclasses.replace(args, model=str(path), revision=None)


def _alone(args: Args) -> bool:
    """Returns whether a published diffusion model draws by itself: one with other stages has options of its own."""
    from jaxdiff.loading import imagines, is_diffusion

    return is_diffusion(Path(args.model)) and not args.then and not imagines(Path(args.model))


def _check_once(argv: list[str]) -> None:
    """Refuses an option that is given twice, of which the parser would take the last in silence, or with nothing."""
    flags = [word.split("=")[0].replace("_", "-") for word in argv if word.startswith("--")]
    for flag, word in itertools.pairwise(argv):
        if flag.startswith("--") and not word and not flag.endswith("prompt"):
            raise ValueError(f"{flag} is empty: give a value after it, or leave it out")
    if twice := sorted({flag for flag in flags if flags.count(flag) > 1}):
        raise ValueError(f"{twice[0]} is given twice: give all its values after one {twice[0]}")


def check(args: Args) -> None:
    """Checks all that needs no model.

    Raises:
      ValueError, OSError: if numbers make no sense, options do not go together, or nothing can be written to `out`.
    """
    for name, least in (("num", 1), ("best_of", 1), ("batch_size", 1), ("clip_skip", 0)):
        if getattr(args, name) < least:
            raise ValueError(f"{name} is {getattr(args, name)}: expected {least} or more")
    for name in ("seed", "interpolate"):
        if (seed := getattr(args, name)) is not None and not 0 <= seed < 2**64:
            raise ValueError(f"{name} is {seed}: expected 0 to 2^64 - 1")
    for name, lowest in (("upscale", 0.01), ("upscale_strength", 0.0)):
        value = getattr(args, name)
        if value is not None and not lowest <= value <= 2**14:
            raise ValueError(f"{name} is {value}: expected a number from {lowest:g} to {2**14}")
    read = {name: [getattr(args, name)] for name in ("image", "mask", "depth", "picture", "towards", "init_noise")} | {
        "hint": args.hint
    }
    for name, paths in read.items():
        if folder := next((path for path in paths if path and path.is_dir()), None):
            raise ValueError(f"--{name.replace('_', '-')} is {folder}, a folder: give a file")
    if args.outpaint and (args.mask or not args.image):
        raise ValueError("--outpaint extends --image and makes the mask itself: give --image and no --mask")
    if args.source_prompt is not None:
        names = ("upscale", "interpolate", "strength", "mask", "outpaint", "init_noise")
        wrong = [f"--{name.replace('_', '-')}" for name in names if getattr(args, name) is not None]
        if wrong or not args.image:
            raise ValueError(
                "--source-prompt says what --image shows, which is inverted as a whole: give --image"
                + (f"; it does not go with {', '.join(wrong)}" if wrong else "")
            )
    if (args.best_of > 1) != (args.rerank is not None):
        raise ValueError(f"--best-of is {args.best_of} and --rerank {args.rerank}: give both, or neither")
    if args.rerank and not all(args.prompt):
        raise ValueError("--rerank chooses by the prompt, and a prompt is empty: give --prompt, or leave --rerank out")
    if args.outpaint and args.image and args.image.suffix == ".npy":
        raise ValueError(f"--outpaint extends a picture, and {args.image} is a file of latents: give a picture")
    if args.interpolate is not None and args.num < 2:
        raise ValueError(
            f"--interpolate leads through the pictures of a prompt, and --num is {args.num}: give 2 or more"
        )
    if args.interpolate is not None and args.init_noise:
        raise ValueError("--interpolate walks from --seed to another seed: --init-noise does not go with it")
    if args.upscale_strength is not None and not args.upscale:
        raise ValueError("--upscale-strength is of the second pass of --upscale: give --upscale too, or leave it out")
    out.check(args.out)
    if args.save_latents:
        if args.save_latents.is_dir():
            raise ValueError(f"--save-latents {args.save_latents} is a folder: give a file in it")
        if args.save_latents.suffix != ".npy":
            raise ValueError(f"--save-latents {args.save_latents}: expected a file that ends in .npy")
        out.check_place(args.save_latents)
    out.check_size(args.out, args.num * len(args.prompt), args.num, 1, 1)
    if args.out.suffix.lower() in (".jpg", ".jpeg") and len(json.dumps(args.prompt)) > 60_000:
        raise ValueError(f"{args.out.suffix} files have room for 64 kB of prompts and settings: choose .png")


def takes(args: Args) -> type:
    """Returns the class of those of `Args` that this model takes, with its own defaults."""
    from jaxdiff.loading import is_published, outline
    from jaxdiff.pretrained import hub

    model, options = outline(Path(args.model), **_loading(args))
    if model is None:
        known = {field.name: field.default for field in dataclasses.fields(options)}
        names = [f.name for f in dataclasses.fields(Args) if OPTIONS.get(f.name, f.name) in known]
        defaults = {arg_name(name): value for name, value in known.items() if value not in (None, ())}
        values = {name: getattr(args, name) for name in ("model", "then", "vqgan") if getattr(args, name)}
        chosen = [*names, *OTHERS, *RANKED, *values, *(["dtype"] if names else [])]
        return narrowed(chosen, {**defaults, **values}, options)
    fields = {field.name: field.default for field in dataclasses.fields(options)}
    names = [field.name for field in dataclasses.fields(Args) if OPTIONS.get(field.name, field.name) in fields]
    own = not is_published(Path(args.model))
    more = {
        ("prompt", *RANKED): model.reads,
        ("outpaint",): "mask" in fields,
        ("source_prompt", "upscale", "upscale_strength"): not model.extra,
        ("dtype",): True,
        ("decode", "decode_dtype"): "vae" in model.nets,
        ("clip_skip",): model.chunked,
        ("controlnet", "adapter", "lora", "fuse", "textual_inversion", "ip_adapter", "image_encoder", "vae"): not own,
        ("tokenizer", "prediction"): Path(args.model).is_file(),
        ("variant", "safety"): Path(args.model).is_dir() and not own,
        ("revision",): hub.commit_of(Path(args.model)) is not None,
    }
    names += [*GENERAL, *(name for group, has in more.items() if has for name in group)]
    values = {f.name: getattr(args, f.name) for f in dataclasses.fields(Args) if getattr(args, f.name) != f.default}
    return narrowed(names, {**{name: fields[name] for name in fields if name in names and fields[name]}, **values})


def sample(args: Args, unknown: Sequence[str] = ()) -> None:
    """Does what `main` does, once the arguments are checked; `unknown` are words for pipelines of other kinds."""
    import numpy as np

    from jaxdiff.cli.progress import counting
    from jaxdiff.data.grid import grid
    from jaxdiff.evaluation import rerank
    from jaxdiff.loading import load
    from jaxdiff.pipelines import canvas, edit
    from jaxdiff.pipelines.diffusion import DiffusionPipeline

    print(f"reading {args.model}", flush=True)
    args = located(args, weights=True)
    pipe = load(args.model, _spec(args), **_loading(args))
    if not isinstance(pipe, DiffusionPipeline):
        return _sample_other(args, pipe, unknown)
    if unknown:
        tyro.cli(takes(args), args=list(unknown), prog="jaxdiff sample")
    if pipe.model.extra and (
        name := next((n for n in ("source_prompt", "upscale") if getattr(args, n) is not None), "")
    ):
        raise ValueError(f"--{name.replace('_', '-')} is of models that take noise alone: {args.model} takes pictures")
    options_given = options_of(args)
    source = options_given.pop("image") if args.source_prompt is not None else None
    options = pipe.options(**options_given)
    if source is not None:
        options = edit.of_inversion(options)
    height, width = pipe.size_of(options if source is None else dataclasses.replace(options, image=source))
    prompts = [prompt for prompt in args.prompt for _ in range(args.num)]
    sides = [round(side * (args.upscale or 1)) for side in (height, width)]
    canvas.check_size(*sides)
    out.check_size(args.out, len(prompts), args.num, *sides)
    options = dataclasses.replace(options, height=height, width=width)
    for path in (args.out, args.save_latents):
        if path is not None and path.exists():
            print(f"replaces {path}", flush=True)
    noise = noise_of(args, pipe, options, len(prompts))
    latents_given = source is None and args.image is not None and args.image.suffix == ".npy"
    if latents_given and len(options.image) != len(prompts):
        raise ValueError(
            f"{args.image} has latents of {len(options.image)} pictures, and {len(prompts)} are wanted: "
            f"{len(args.prompt)} prompts, --num {args.num} of each"
        )
    keys, embed = keys_of(args), rerank.embedder(args.rerank)
    parts, latents = [], []
    with counting("pictures", len(prompts), waiting="compiling") as tell:
        for first in range(0, len(prompts), args.batch_size):
            at = slice(first, first + args.batch_size)
            here = options if noise is None else dataclasses.replace(options, init_noise=noise[at])
            if latents_given:
                here = dataclasses.replace(here, image=options.image[at])
            draw = lambda keys, words=prompts[at], here=here: _draw(args, pipe, words, keys, here, source)
            best = rerank.best_of(draw, keys[at], prompts[at], args.best_of, embed)
            parts.append(best[0])
            latents.append(best[1])
            tell(min(at.stop, len(prompts)))
    if args.save_latents:
        args.save_latents.parent.mkdir(parents=True, exist_ok=True)
        with args.save_latents.open("wb") as file:
            np.save(file, np.concatenate(latents))
    sheet = grid(np.concatenate(parts), prompts, args.num if args.num > 1 else None)
    out.write(args.out, sheet, settings(args, pipe, options))
    print(f"{len(prompts)} picture{'s' if len(prompts) > 1 else ''}: {args.out}")
    return None


def _sample_other(args: Args, pipe: Pipeline, words: Sequence[str]) -> None:
    """Samples a pipeline that is not a diffusion model: its options are the words that no other model knows."""
    import jax
    import numpy as np

    from jaxdiff.cli.progress import counting
    from jaxdiff.data.grid import grid
    from jaxdiff.evaluation import rerank
    from jaxdiff.pipelines.inputs import root_key
    from jaxdiff.pipelines.pipeline import HasOriginals, HasStages

    listed = {f.name for f in dataclasses.fields(pipe.Options)}
    options: Any = tyro.cli(own_options(pipe.Options), args=list(words), prog=f"jaxdiff sample --model {args.model}")
    taken = {arg_name(name) for name in listed} | {*OTHERS, *RANKED, "then", "vqgan", "dtype"}
    changed = [f.name for f in dataclasses.fields(Args) if getattr(args, f.name) != f.default and f.name not in taken]
    if changed:
        known = ", ".join(f"--{arg_name(name).replace('_', '-')}" for name in sorted(listed)) or "none"
        raise ValueError(
            f"--{changed[0].replace('_', '-')} is not an option of {args.model}: its own options are {known}"
        )
    own = {f.name: getattr(options, f.name) for f in dataclasses.fields(options)}
    options = pipe.Options(**given_options(args, listed), **own)
    files = getattr(options, "init", ())  # of a pipeline that makes one picture of each
    prompts = [prompt for prompt in args.prompt for _ in range(args.num)]
    keys, parts, embed = keys_of(args), [], rerank.embedder(args.rerank)
    originals = isinstance(pipe, HasOriginals)
    make = pipe.both if isinstance(pipe, HasOriginals) else pipe
    if files:
        if args.num != Args.num:
            raise ValueError(f"--num is {args.num}, and --init gives {len(files)} pictures: leave --num out")
        prompts, keys = [prompts[0]] * len(files), jax.random.split(root_key(args.seed), len(files))
    with counting("pictures", len(prompts), waiting="compiling") as tell:
        for first in range(0, len(prompts), args.batch_size):
            at = slice(first, first + args.batch_size)
            here = dataclasses.replace(options, init=files[at]) if files else options
            draw = lambda keys, words=prompts[at], here=here: make(words, key=keys, options=here)
            parts.append(rerank.best_of(draw, keys[at], prompts[at], args.best_of, embed))
            tell(min(at.stop, len(prompts)))
    if args.out.exists():
        print(f"replaces {args.out}", flush=True)
    named = {"model": args.model, "prompt": args.prompt, "num": 1 if files else args.num, "seed": args.seed}
    named |= {"best_of": args.best_of, "rerank": str(args.rerank)} if args.rerank else {}
    captions, columns = ([Path(file).name for file in files], None) if files else (prompts, args.num)
    images = np.concatenate([part[0] for part in parts] if originals else parts)
    sheet = grid(images, captions, columns if args.num > 1 else None)
    settings = {name: value for name, value in dataclasses.asdict(args).items() if name in taken - {*OTHERS}} | own
    settings = json.loads(json.dumps(settings, default=str))
    if isinstance(pipe, HasStages) and pipe.runs:
        each = pipe.settings(given_options(args, listed) | own)
        settings["stages"] = [{"run": run, **stage} for run, stage in zip(pipe.runs, each, strict=True)]
    out.write(args.out, sheet, {**named, **settings, "jaxdiff": __version__})
    if isinstance(pipe, HasOriginals):
        for path in pipe.write(args.out, np.concatenate([part[1] for part in parts])):
            print(f"wrote {path}")
    print(f"{len(prompts)} picture{'s' if len(prompts) > 1 else ''}: {args.out}")


def _spec(args: Args) -> Any:
    from jaxdiff.parallel import MeshSpec

    return "pmap" if args.strategy == "pmap" else MeshSpec(**dataclasses.asdict(args.mesh))


def _loading(args: Args) -> dict[str, Any]:
    """Returns the options of `load`."""
    same = "dtype decode_dtype variant tokenizer prediction fuse adapter ip_adapter image_encoder vae clip_skip decode"
    return {
        **{name: getattr(args, name) for name in (*same.split(), "safety", "programs", "then", "vqgan")},
        "image": args.image is not None,
        "loras": args.lora,
        "controlnets": args.controlnet,
        "textual_inversions": args.textual_inversion,
    }


def _draw(
    args: Args, pipe: DiffusionPipeline, prompts: list[str], keys: Any, options: Options, source: np.ndarray | None
) -> Any:
    """Makes pictures and latents, in one call of a pipeline or two; `source` is what is inverted."""
    from jaxdiff.pipelines import edit

    if source is not None:
        source_prompt = args.source_prompt or ""
        return edit.invert_and_edit(pipe, source, prompts, source=source_prompt, key=keys, options=options)
    if args.upscale:
        strength = {} if args.upscale_strength is None else {"upscale_strength": args.upscale_strength}
        return edit.hires(pipe, prompts, key=keys, scale=args.upscale, options=options, **strength)
    return pipe(prompts, key=keys, options=options, latents=True)


def settings(args: Args, pipe: DiffusionPipeline, options: Options) -> dict[str, Any]:
    """Returns what the picture carries: the arguments, and the options that ran, as far as this model takes them."""
    named = json.loads(json.dumps(dataclasses.asdict(args), default=str))
    taken = {field.name for field in dataclasses.fields(pipe.Options)}
    for name in list(named):
        option = OPTIONS.get(name, name)
        if not hasattr(options, option):
            continue
        if option not in taken:
            del named[name]
        elif isinstance(value := getattr(options, option), int | float | str) or value is None:
            named[name] = value
    if "guidance" in taken and options.guidance is None:
        named["guidance"] = 1.0
    return {**named, "jaxdiff": __version__}
