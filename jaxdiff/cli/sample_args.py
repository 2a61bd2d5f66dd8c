"""The options of `jaxdiff sample`, importable in a moment; and those of them that one model takes."""

import dataclasses
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

    The model may be one of `jaxdiff train`, or Stable Diffusion and its kin, as a directory of diffusers or one file.
    `jaxdiff sample --model M --help` lists the options that M takes; what it does not take is refused before anything
    is compiled.

    Attributes:
      model: a run of `jaxdiff train` or one of its checkpoints, RUN/checkpoints/STEP; a directory with
        model_index.json; or a .safetensors or .ckpt file.
      prompt: what to show, in words or as a class; several make several rows. For CLIP's text encoders parts may count
        more, "a (red:1.3) hat".
      num: pictures of each prompt.
      out: the picture to write, .png, .jpg or .webp; it carries prompts, seed and settings as text.
      steps: of the sampler.
      sampler: how to walk from noise to picture; by default what the model's authors use, or ddim. Known are ddpm,
        ddim, euler, euler_ancestral, heun, edm, kdpm2, kdpm2_ancestral, dpmpp_2s_ancestral, dpmpp_sde, restart, lms,
        plms, pndm, ipndm, dpm_solver, dpm_solver_single, dpmpp_2s, dpmpp_2s_sde, dpmpp_2m, dpmpp_3m, dpmpp_2m_sde,
        dpmpp_3m_sde, deis, unipc, sa_solver, consistency, lcm, tcd, flow_euler, flow_heun, repaint.
      grid: where between noise and picture the network is called; by default the sampler's own. Known are leading,
        trailing, linspace, quadratic, distilled, few_steps, karras, exponential, uniform_log_snr, moderate, beta,
        align_your_steps.
      guidance: how closely to follow the prompt; 1 is off. By default 3 for a run of `jaxdiff train`, else 7.5.
      negative_prompt: what to keep away from.
      rescale: from 0 to 1, how far guidance may not raise contrast.
      eta: noise added at each step by samplers that have it, from 0 (none) to 1 (as DDPM).
      seed: from 0 to 2^64 - 1; picture i of a prompt depends on the seed and i alone, not on the others.
      init_noise: a .npy file [pictures, height, width, channels] of unit Gaussian noise to start from, as latents.
      batch_size: most pictures made at once.
      strategy: how devices share the pictures, a mesh or pmap.
      mesh: ways to share pictures (data), weights (fsdp) and heads (tensor).
      programs: a folder that keeps traced programs, so that another start traces nothing.
      height: of the pictures, rounded to what the networks can take, which is said; by default as the model was
        trained, or as --image.
      width: the same.
      chunks: of 75 tokens, how much of a long prompt is read.
      save_latents: a .npy file for the latents [pictures, height, width, channels].
      image: a picture to start from, to fill, to edit or to enlarge, whatever the model does.
      strength: how much of --image changes, from 0 to 1; by default 0.8, and 1 with a mask.
      original: of the enlarged size, what an enlarged picture starts from, as far as --strength says.
      mask: a picture, white where --image gets new content.
      outpaint: pixels by which to extend --image to the left, right, top and bottom.
      source_prompt: what --image shows; it is inverted by DDIM and made again with --prompt.
      upscale: how many times larger to make each side, in a second pass over enlarged latents.
      upscale_strength: how much that pass changes.
      interpolate: another seed; the pictures of a prompt then lead from --seed's first noise to this seed's.
      picture: for an IP-adapter, or a model that makes variations of a picture.
      picture_weight: how much an IP-adapter's counts.
      picture_guidance: how closely a model that edits pictures keeps to --image.
      noise_level: noise that a model that enlarges pictures adds to --image, so that it may invent details.
      hint: pictures for the ControlNets, in their order, and last for the T2I-adapter.
      hint_weight: how much each of them counts; by default 1.
      controlnet: directories or files of ControlNets.
      adapter: directory of a T2I-adapter.
      ip_adapter: file of an IP-adapter; needs CLIP's --image-encoder where the model has none.
      image_encoder: directory of CLIP's image encoder.
      lora: files or directories of LoRAs, each as PATH or PATH:WEIGHT; one that is given twice counts twice.
      fuse: add LoRAs to the weights once, instead of in each call.
      textual_inversion: files of new words for the prompt, each as PATH or PATH:WORD; by default the file names it.
      then: directories of later stages, which make the pictures larger (of DeepFloyd IF, and Stable Diffusion's x4).
      vae: directory or file of another autoencoder.
      tokenizer: directory of the tokenizer for a model that is one file.
      prediction: what a Stable Diffusion 2 that is one file predicts.
      dtype: of weights and computation; int8 and fp8 compute in bfloat16. By default the files', computed in float32.
      decode_dtype: of the autoencoder; by default float32 where the model asks for it.
      variant: fp16 takes such weights where the directory has them.
      clip_skip: skip the last n blocks of CLIP's text encoder.
      decode: whole, sliced (one picture after another) or tiled (squares of a picture), which take less memory.
      safety: let the model's safety checker blacken pictures.
    """

    model: str
    prompt: tuple[str, ...] = ("",)
    num: int = 4
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
    then: tuple[Path, ...] = ()
    vae: Path | None = None
    tokenizer: Path | None = None
    prediction: Literal["epsilon", "v_prediction"] | None = None
    dtype: Literal["float32", "bfloat16", "float16", "int8", "fp8"] | None = None
    decode_dtype: Literal["float32", "bfloat16", "float16"] | None = None
    variant: str | None = None
    clip_skip: int = 0
    decode: Literal["whole", "sliced", "tiled"] = "whole"
    safety: bool = False


OPTIONS = {"negative_prompt": "negative", "hint": "hints", "hint_weight": "hint_weights"}
"""Names of `pipelines.options.Options` where they are others than those of `Args`."""

GENERAL = ("model", "num", "out", "seed", "batch_size", "strategy", "mesh", "programs", "save_latents", "interpolate")
"""What every model takes, beside its `Options`."""


OTHERS = ("model", "prompt", "num", "out", "seed", "batch_size", "strategy", "mesh")
"""What every pipeline takes that is no diffusion, beside its own `Options`."""


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
    head, _, listed = (Args.__doc__ or "").partition("    Attributes:\n")
    texts = re.split(r"^(?=      \w+: )", listed, flags=re.MULTILINE)
    kept = [text for text in texts if (found := re.match(r"      (\w+): ", text)) and found[1] in names]
    doc = head.replace("`jaxdiff sample --model M --help` lists the options that M takes; w", "W")
    doc += "    Attributes:\n" + "".join(kept)
    if options is not None:
        own = typing.get_type_hints(options)
        fields += [(f.name, own[f.name], dataclasses.field(default=f.default)) for f in dataclasses.fields(options)]
        doc += (options.__doc__ or "").partition("    Attributes:\n")[2]
    return dataclasses.make_dataclass("Args", fields, frozen=True, namespace={"__doc__": doc})
