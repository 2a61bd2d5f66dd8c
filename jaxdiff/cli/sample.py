"""`jaxdiff sample --model DIR --prompt "a red heart" ...`."""

import dataclasses
import inspect
import json
import warnings
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import tyro

from jaxdiff.cli.main import compilation_cache
from jaxdiff.data.grid import grid, save_png
from jaxdiff.data.picture import decode
from jaxdiff.loading import load
from jaxdiff.parallel import MeshSpec
from jaxdiff.pipelines import canvas, edit
from jaxdiff.pipelines.diffusion import DiffusionPipeline


@dataclasses.dataclass(frozen=True)
class Args:
    """Makes pictures with a trained model and writes them as one grid.

    The model may be one of `jaxdiff train`, or Stable Diffusion and its kin, as a directory of diffusers or one file.
    Options from --height on are for the latter; which of them a model takes depends on its networks, and what it lacks
    or does not look at is said before anything is compiled.

    Attributes:
      model: a run of `jaxdiff train` or one of its checkpoints, RUN/checkpoints/STEP; a directory with
        model_index.json; or a .safetensors or .ckpt file.
      prompt: what to show; several make several rows. Parts may count more: "a (red:1.3) hat".
      num: pictures of each prompt.
      out: the PNG; it carries prompts, seed and settings as text.
      steps: of the sampler.
      sampler: how to walk from noise to picture; by default what the model's authors use, or ddim.
      guidance: how closely to follow the prompt; 1 is off. By default 3 for a run of `jaxdiff train`, else 7.5.
      negative_prompt: what to keep away from.
      eta: noise added at each step by samplers that have it, from 0 (none) to 1 (as DDPM).
      seed: picture i of a prompt depends on the seed and i alone, not on the others.
      init_noise: a .npy file [pictures, height, width, channels] of unit Gaussian noise to start from, as latents.
      batch_size: most pictures made at once.
      strategy: how devices share the pictures: a mesh, or pmap.
      mesh: ways to share pictures (data), weights (fsdp) and heads (tensor); -1 is the devices that are left.
      programs: a folder that keeps traced programs, so that another start traces nothing.
      height: of the pictures, a multiple of 8 (64 with a T2I-adapter), else it is rounded and said; by default as the
        model was trained, or as --image.
      width: the same.
      grid: where between noise and picture the network is called, such as karras; by default the sampler's own.
      rescale: from 0 to 1, how far guidance may not raise contrast.
      chunks: of 75 tokens, how much of a long prompt is read.
      save_latents: a .npy file for the latents [pictures, height, width, channels].
      image: a picture to start from, to fill, to edit or to enlarge, whatever the model does.
      strength: how much of --image changes, from 0 to 1; by default 0.8, and 1 with a mask.
      mask: a picture, white where --image gets new content.
      outpaint: pixels by which to extend --image to the left, right, top and bottom.
      source_prompt: what --image shows: it is inverted by DDIM and made again with --prompt.
      upscale: how many times larger to make each side, in a second pass over enlarged latents.
      upscale_strength: how much that pass changes.
      interpolate: another seed; the pictures of a prompt then lead from --seed's first to its first.
      picture: for an IP-adapter, or a model that makes variations of a picture.
      picture_weight: how much an IP-adapter's counts.
      picture_guidance: how closely a model that edits pictures keeps to --image.
      noise_level: noise that a model that enlarges pictures adds to --image, so that it may invent details.
      hint: pictures for the ControlNets, in their order, and last for the T2I-adapter.
      hint_weight: how much each of them counts; by default 1.
      controlnet: directories of ControlNets.
      adapter: directory of a T2I-adapter.
      ip_adapter: file of an IP-adapter; needs CLIP's --image-encoder where the model has none.
      image_encoder: directory of CLIP's image encoder.
      lora: files or directories of LoRAs, each as PATH or PATH:WEIGHT.
      fuse: add LoRAs to the weights once, instead of in each call.
      textual_inversion: files of new words for the prompt.
      vae: directory of another autoencoder.
      tokenizer: directory of the tokenizer for a model that is one file.
      prediction: what a Stable Diffusion 2 that is one file predicts.
      dtype: of weights and computation; int8 and fp8 compute in bfloat16. By default the files', computed in float32.
      decode_dtype: of the autoencoder; by default float32 where the model asks for it.
      variant: fp16 takes such weights where the directory has them.
      clip_skip: take the prompt's states so many blocks earlier than usual.
      decode: whole, sliced (one picture after another) or tiled (squares of a picture), which take less memory.
      safety: let the model's safety checker blacken pictures.
    """

    model: str
    prompt: tuple[str, ...] = ("",)
    num: int = 4
    out: Path = Path("samples.png")
    steps: int = 20
    sampler: str | None = None
    guidance: float | None = None
    negative_prompt: str | None = None
    eta: float | None = None
    seed: int = 0
    init_noise: Path | None = None
    batch_size: int = 64
    strategy: Literal["mesh", "pmap"] = "mesh"
    mesh: MeshSpec = MeshSpec()
    programs: Path | None = None
    height: int | None = None
    width: int | None = None
    grid: str | None = None
    rescale: float | None = None
    chunks: int | None = None
    save_latents: Path | None = None
    image: Path | None = None
    strength: float | None = None
    mask: Path | None = None
    outpaint: tuple[int, int, int, int] | None = None
    source_prompt: str | None = None
    upscale: float | None = None
    upscale_strength: float = 0.6
    interpolate: int | None = None
    picture: Path | None = None
    picture_weight: float | None = None
    picture_guidance: float | None = None
    noise_level: int | None = None
    hint: tuple[Path, ...] = ()
    hint_weight: tuple[float, ...] = ()
    controlnet: tuple[Path, ...] = ()
    adapter: Path | None = None
    ip_adapter: Path | None = None
    image_encoder: Path | None = None
    lora: tuple[str, ...] = ()
    fuse: bool = False
    textual_inversion: tuple[Path, ...] = ()
    vae: Path | None = None
    tokenizer: Path | None = None
    prediction: Literal["epsilon", "v_prediction"] | None = None
    dtype: Literal["float32", "bfloat16", "float16", "int8", "fp8"] | None = None
    decode_dtype: Literal["float32", "bfloat16", "float16"] | None = None
    variant: str | None = None
    clip_skip: int = 0
    decode: Literal["whole", "sliced", "tiled"] | None = None
    safety: bool = False


def main(argv: list[str]) -> None:
    """Samples and writes the grid."""
    args = tyro.cli(Args, args=argv, prog="jaxdiff sample")
    if args.num < 1 or args.batch_size < 1:
        raise ValueError(f"num is {args.num} and batch_size {args.batch_size}: expected at least 1 of each")
    compilation_cache()
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = lambda message, *_, **__: print(message, flush=True)
        sample(args)


def sample(args: Args) -> None:
    """What `main` does with its arguments."""
    pipe = load(args.model, "pmap" if args.strategy == "pmap" else args.mesh, **_loading(args))
    prompts = [prompt for prompt in args.prompt for _ in range(args.num)]
    root = jax.random.key(args.seed)
    keys = jax.vmap(lambda i: jax.random.fold_in(root, i))(np.tile(np.arange(args.num), len(args.prompt)))
    options = _calling(args)
    noise = None if args.init_noise is None else np.load(args.init_noise, allow_pickle=False)
    if args.interpolate is not None:
        noise = _walk(args, pipe, args.interpolate)
    parts, latents = [], []
    for first in range(0, len(prompts), args.batch_size):
        at = slice(first, first + args.batch_size)
        options["init_noise"] = None if noise is None else noise[at]
        made = _draw(args, pipe, prompts[at], keys[at], options)
        parts.append(made[0])
        latents.append(made[1])
        if len(prompts) > args.batch_size:
            print(f"{min(at.stop, len(prompts))}/{len(prompts)} pictures", flush=True)
    if args.save_latents:
        args.save_latents.parent.mkdir(parents=True, exist_ok=True)
        with args.save_latents.open("wb") as file:
            np.save(file, np.concatenate(latents))
    settings = json.loads(json.dumps(dataclasses.asdict(args), default=str))
    used = {
        name: pipe.guidance if name == "guidance" else one.default
        for name, one in inspect.signature(type(pipe).__call__).parameters.items()
    }
    settings |= {name: used[name] for name in settings.keys() & used.keys() if settings[name] is None}
    columns = args.num if args.num > 1 else None
    save_png(args.out, grid(np.concatenate(parts), prompts, columns), settings)
    print(f"{len(prompts)} pictures: {args.out}")


def _given(args: Args, function: Any) -> dict[str, Any]:
    """The parameters of a function that were given on the command line by the same name."""
    fields = {field.name: field.default for field in dataclasses.fields(Args)}
    names = fields.keys() & inspect.signature(function).parameters.keys()
    return {name: getattr(args, name) for name in names if getattr(args, name) != fields[name]}


def _loading(args: Args) -> dict[str, Any]:
    """The options of `load` that were given."""
    options = _given(args, load)
    if args.controlnet:
        options["controlnets"] = args.controlnet
    if args.textual_inversion:
        options["textual_inversions"] = args.textual_inversion
    if args.lora:
        options["loras"] = dict(weighted(text) for text in args.lora)
    return options


def weighted(text: str) -> tuple[str, float]:
    """PATH:WEIGHT, or PATH with weight 1."""
    path, colon, weight = text.rpartition(":")
    try:
        return (path, float(weight)) if colon and path else (text, 1.0)
    except ValueError:
        return text, 1.0


def _calling(args: Args) -> dict[str, Any]:
    """The options of a call that were given; pictures are read.

    Raises:
      ValueError: if options do not go together, or a run of `jaxdiff train` is asked for what it cannot do.
    """
    options = _given(args, DiffusionPipeline.__call__)
    if args.negative_prompt is not None:
        options["negative"] = args.negative_prompt
    if args.outpaint and (args.mask or not args.image):
        raise ValueError("--outpaint extends --image and makes the mask itself: give --image and no --mask")
    if args.source_prompt is not None and (not args.image or args.upscale or args.interpolate is not None):
        raise ValueError(
            "--source-prompt says what --image shows: give --image, and neither --upscale nor --interpolate"
        )
    if args.interpolate is not None and args.init_noise:
        raise ValueError("--interpolate walks from --seed to another seed: --init-noise does not go with it")
    for name in ("image", "picture"):
        if path := getattr(args, name):
            options[name] = decode(path)[None]
    if args.mask:
        options["mask"] = (decode(args.mask)[None].mean(-1, keepdims=True) >= 127.5).astype(np.float32)
    if args.outpaint:
        sides = dict(zip(("left", "right", "top", "bottom"), args.outpaint, strict=True))
        options["image"], options["mask"] = canvas.outpaint(options["image"], **sides)
    if args.hint:
        options["hints"] = [decode(path)[None] for path in args.hint]
    if args.hint_weight:
        options["hint_weights"] = args.hint_weight
    if args.guidance == 1:  # half the work for the same pictures
        options["guidance"] = None
    return {"latents": True, **options}


def _draw(args: Args, pipe: Any, prompts: list[str], keys: Any, options: dict[str, Any]) -> Any:
    """Pictures and latents, in one call of a pipeline or two."""
    plain = {name: value for name, value in options.items() if name != "latents"}
    if args.source_prompt is not None:
        plain.pop("sampler", None), plain.pop("init_noise")
        return edit.invert_and_edit(pipe, plain.pop("image"), prompts, source=args.source_prompt, key=keys, **plain)
    if args.upscale:
        strength = args.upscale_strength
        return edit.hires(pipe, prompts, key=keys, scale=args.upscale, strength=strength, **plain)
    return pipe(prompts, key=keys, **options)


def _walk(args: Args, pipe: DiffusionPipeline, other: int) -> np.ndarray:
    """Noise for the pictures of each prompt, from that of one seed to that of the other."""
    a, b = (
        pipe.noise(jax.random.fold_in(jax.random.key(seed), 0)[None], args.height, args.width)[0]
        for seed in (args.seed, other)
    )
    return np.tile(edit.between(a, b, args.num), (len(args.prompt), 1, 1, 1))
