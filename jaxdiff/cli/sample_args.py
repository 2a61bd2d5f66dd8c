"""The options of `jaxdiff sample`, importable in a moment; and those of them that one model takes."""

import dataclasses
import inspect
import re
import typing
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal


@dataclasses.dataclass(frozen=True)
class Mesh:
    """Ways to share the work between devices; at most one may be -1, the devices that are left.

    Attributes:
      data: copies of the model, each with a part of the pictures.
      fsdp: ways to split the weights.
      tensor: ways to split heads and MLP width.
    """

    data: int = -1
    fsdp: int = 1
    tensor: int = 1


@dataclasses.dataclass(frozen=True)
class Args:
    """Makes pictures with a trained model and writes them as one grid.

    The model is a run of `jaxdiff train`, or a published one such as Stable Diffusion: a diffusers directory, one file,
    or a name on the Hugging Face hub. `jaxdiff sample --model M --help` lists only the options that M takes; any other
    is refused before anything is compiled.

    Attributes:
      model: a run of `jaxdiff train` or one of its checkpoints, RUN/checkpoints/STEP; a directory with
        model_index.json; a .safetensors, .ckpt or .pt file; or a name on the hub, ORG/NAME, whose files are then read
        from its cache.
      prompt: text or class name to show; each prompt makes a row. With CLIP text encoders, parts can be
        weighted, as in "a (red:1.3) hat".
      num: number of pictures for each prompt.
      best_of: number of pictures to draw for each that is shown; --rerank keeps the one nearest to the prompt.
      rerank: run of the task clip, or directory of a transformers CLIP model, that chooses among the --best-of drawn.
      out: file to write, .png, .jpg or .webp; prompts, seed and settings are stored in its metadata.
      steps: number of sampling steps.
      sampler: sampling method; by default the one that the model's authors use, or ddim. One of ddpm,
        ddim, euler, euler_ancestral, heun, edm, kdpm2, kdpm2_ancestral, dpmpp_2s_ancestral, dpmpp_sde, restart, lms,
        plms, pndm, ipndm, dpm_solver, dpm_solver_single, dpmpp_2s, dpmpp_2s_sde, dpmpp_2m, dpmpp_3m, dpmpp_2m_sde,
        dpmpp_3m_sde, deis, unipc, sa_solver, consistency, lcm, tcd, flow_euler, flow_heun, repaint.
      grid: spacing of the noise levels at which the network is called; by default the sampler's own. One of leading,
        trailing, linspace, quadratic, distilled, few_steps, karras, exponential, uniform_log_snr, moderate, beta,
        align_your_steps.
      guidance: classifier-free guidance scale; 1 turns it off. By default 3 for a run of `jaxdiff train`, else 7.5.
      negative_prompt: text that pictures should not show.
      rescale: how much of the contrast added by guidance to remove, from 0 (none) to 1 (all).
      eta: noise added at each step, for samplers that take it, from 0 (none) to 1 (as much as DDPM).
      seed: random seed from 0 to 2^64 - 1; picture i of a prompt depends only on the seed and i.
      init_noise: .npy file of unit Gaussian noise to start from, shaped as latents [pictures, height, width, channels].
      batch_size: maximum number of pictures made at once.
      strategy: how devices share the work, by a mesh or by pmap.
      mesh: number of ways to split pictures (data), weights (fsdp) and attention heads (tensor).
      programs: directory in which to keep compiled programs, so that later starts neither trace nor compile.
      height: height of the pictures; rounded, with a message, to a size that the networks accept. By default the
        trained size, or that of --image.
      width: width of the pictures, likewise.
      chunks: maximum number of 75-token chunks of a long prompt to read.
      save_latents: .npy file to write the latents to [pictures, height, width, channels].
      image: picture to start from, fill, edit or enlarge, depending on the model; or latents, as a .npy file.
      strength: how much to change --image, from 0 to 1; by default 0.8, or 1 with a mask.
      original: picture of the enlarged size from which enlarging starts, changed by --strength.
      mask: picture that is white where --image gets new content.
      outpaint: number of pixels by which to extend --image to the left, right, top and bottom.
      source_prompt: description of --image, which is inverted by DDIM and made again with --prompt.
      upscale: factor by which to enlarge each side, in a second pass over enlarged latents.
      upscale_strength: how much that second pass changes, from 0 to 1.
      interpolate: seed to interpolate to: the pictures of a prompt go from --seed's first noise to this seed's.
      picture: picture for an IP-adapter, or for a model that makes variations of a picture.
      picture_weight: weight of the IP-adapter's picture.
      denoising_start: fraction of the denoising, between 0 and 1, that another model has done; --image is then the file
        of its --save-latents.
      denoising_end: fraction of the denoising, between 0 and 1, after which sampling stops; --save-latents saves the
        unfinished latents for another model.
      picture_guidance: how closely an editing model keeps to --image.
      noise_level: noise level that an upscaling model adds to --image; more lets it invent more detail.
      towards: picture towards whose embedding that of --picture is moved, by --mix.
      blend: pictures and texts, each FILE:WEIGHT or TEXT:WEIGHT; the weighted sum of their embeddings is drawn in place
        of the prompt's.
      prior_steps: number of sampling steps of a prior (unCLIP, Kandinsky).
      prior_guidance: classifier-free guidance scale of a prior; 1 turns it off.
      prior_draws: number of embeddings that a prior draws for each picture; the one nearest the text is kept.
      hint: one picture for each ControlNet, in their order, then one for the T2I-adapter.
      depth: depth map to follow, bright where things are near.
      hint_weight: weight of each hint; by default 1.
      controlnet: directories or files of ControlNets.
      adapter: directory of a T2I-adapter.
      ip_adapter: file of an IP-adapter; needs CLIP's --image-encoder where the model has none.
      image_encoder: directory of CLIP's image encoder.
      lora: files, directories or runs of LoRAs, each PATH or PATH:WEIGHT; the weights of one given twice add up.
      fuse: add the LoRAs to the weights once, instead of in every call.
      textual_inversion: files of new words for prompts, each PATH or PATH:WORD; by default the word stored in the file.
      then: directories or files of later stages, which enlarge the pictures (DeepFloyd IF's, Stable Diffusion's x4
        upscaler, GLIDE's), or draw what a prior imagines (Kandinsky's decoders).
      vqgan: directory of the VQGAN of DALL-E mini or mega, where the model has no folder vqgan.
      vae: directory or file of an autoencoder to use instead of the model's.
      tokenizer: directory of the tokenizer, for a model in a single file.
      prediction: prediction type, for a Stable Diffusion 2 in a single file.
      dtype: type of weights and computation; int8 and fp8 compute in bfloat16. By default weights have the type of
        their files, and computation is in float32.
      decode_dtype: type of the autoencoder; by default that of --dtype, or float32 where the model requires it.
      variant: read weight files of this variant, such as fp16, where the directory has them.
      clip_skip: number of last blocks of CLIP's text encoder to skip.
      decode: decode pictures whole, sliced (one at a time) or tiled (in squares); the latter two take less memory.
      revision: branch, tag or commit of a name on the hub; by default main, as it is now.
      safety: let the model's safety checker black out pictures.
    """

    model: str
    prompt: tuple[str, ...] = ("",)
    num: int = 4
    best_of: int = 1
    rerank: Path | None = None
    out: Path = Path("samples.png")
    steps: int = 20
    sampler: str | None = None
    grid: str | None = None
    guidance: float | None = None
    negative_prompt: str | None = None
    rescale: float | None = None
    eta: float | None = None
    seed: int = 0
    init_noise: Path | None = None
    batch_size: int = 64
    strategy: Literal["mesh", "pmap"] = "mesh"
    mesh: Mesh = Mesh()
    programs: Path | None = None
    height: int | None = None
    width: int | None = None
    chunks: int | None = None
    save_latents: Path | None = None
    image: Path | None = None
    strength: float | None = None
    original: Path | None = None
    mask: Path | None = None
    outpaint: tuple[int, int, int, int] | None = None
    source_prompt: str | None = None
    upscale: float | None = None
    upscale_strength: float | None = None
    interpolate: int | None = None
    picture: Path | None = None
    picture_weight: float | None = None
    denoising_start: float | None = None
    denoising_end: float | None = None
    picture_guidance: float | None = None
    noise_level: int | None = None
    towards: Path | None = None
    blend: tuple[str, ...] = ()
    prior_steps: int | None = None
    prior_guidance: float | None = None
    prior_draws: int | None = None
    hint: tuple[Path, ...] = ()
    depth: Path | None = None
    hint_weight: tuple[float, ...] = ()
    controlnet: tuple[Path, ...] = ()
    adapter: Path | None = None
    ip_adapter: Path | None = None
    image_encoder: Path | None = None
    lora: tuple[str, ...] = ()
    fuse: bool = False
    textual_inversion: tuple[Path, ...] = ()
    then: tuple[Path, ...] = ()
    vqgan: Path | None = None
    vae: Path | None = None
    tokenizer: Path | None = None
    prediction: Literal["epsilon", "v_prediction"] | None = None
    dtype: Literal["float32", "bfloat16", "float16", "int8", "fp8"] | None = None
    decode_dtype: Literal["float32", "bfloat16", "float16"] | None = None
    variant: str | None = None
    revision: str | None = None
    clip_skip: int = 0
    decode: Literal["whole", "sliced", "tiled"] = "whole"
    safety: bool = False


OPTIONS = {"negative_prompt": "negative", "hint": "hints", "hint_weight": "hint_weights"}
"""Names of `pipelines.options.Options` where they are others than those of `Args`."""

GENERAL = ("model", "num", "out", "seed", "batch_size", "strategy", "mesh", "programs", "save_latents", "interpolate")
"""The options that every diffusion model takes, beside its `Options`."""


OTHERS = ("model", "prompt", "num", "out", "seed", "batch_size", "strategy", "mesh")
"""The options that every pipeline takes which is not a diffusion model, beside its own `Options`."""


RANKED = ("best_of", "rerank")
"""The options of every pipeline that reads prompts, and makes pictures to choose from."""


def arg_name(option: str) -> str:
    """Returns the name that an option of a pipeline has in `Args`."""
    return next((ours for ours, theirs in OPTIONS.items() if theirs == option), option)


def own_options(options: type) -> type:
    """Returns the class of those options of a pipeline that `Args` does not have, and words can give: no arrays."""
    listed = {f.name for f in dataclasses.fields(Args)}
    hints = typing.get_type_hints(options)
    fields = [
        (f.name, hints[f.name], dataclasses.field(default=f.default))
        for f in dataclasses.fields(options)
        if arg_name(f.name) not in listed and hints[f.name] is not Any
    ]
    return dataclasses.make_dataclass("Options", fields, frozen=True, namespace={"__doc__": options.__doc__})


def documented(options: type) -> str:
    """Returns the docstring of a class without its indentation, which Python itself leaves out from 3.13 on."""
    return inspect.cleandoc(options.__doc__ or "") + "\n"


def narrowed(names: Collection[str], defaults: Mapping[str, Any], options: type | None = None) -> type:
    """Makes a class of those fields of `Args`, with other defaults where they are given: what one model takes.

    The fields of `options` come last.
    """
    hints = typing.get_type_hints(Args)
    fields = [
        (f.name, hints[f.name], dataclasses.field(default=defaults.get(f.name, f.default)))
        for f in dataclasses.fields(Args)
        if f.name in names
    ]
    head, _, listed = documented(Args).partition("Attributes:\n")
    texts = re.split(r"^(?=  \w+: )", listed, flags=re.MULTILINE)
    kept = [text for text in texts if (found := re.match(r"  (\w+): ", text)) and found[1] in names]
    doc = head.replace("`jaxdiff sample --model M --help` lists the options that M takes; w", "W")
    doc += "Attributes:\n" + "".join(kept)
    if options is not None:
        own = own_options(options)
        fields += [(f.name, f.type, dataclasses.field(default=f.default)) for f in dataclasses.fields(own)]
        doc += documented(options).partition("Attributes:\n")[2]
    return dataclasses.make_dataclass("Args", fields, frozen=True, namespace={"__doc__": doc})
