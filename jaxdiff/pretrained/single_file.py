"""Checkpoints in one file, as Stable Diffusion's authors publish them: U-Net, autoencoder and text encoders together.

Such a file says nothing about its numbers or its tokenizer. The former follow from which tensors it has: the models it
may be are listed in `presets`. What its network predicts is said by some files (`single_process`).

Files of two layouts hold the same networks: CompVis' (`cond_stage_model`) and Stability AI's (`conditioner.embedders`),
and tools leave more in them than the networks. All that is known to have no effect on a picture is passed over; where a
file has averaged weights (`model_ema`) besides the plain ones, the plain ones count, as in other tools. Where it has no
others, the averaged ones are the U-Net's, and a warning says so: their names are the plain ones without dots.
"""

import dataclasses
import re
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from jaxdiff.data.tokenizer_clip import END
from jaxdiff.pretrained import clip_tokenizer, files, single_process
from jaxdiff.pretrained.components import Json, family
from jaxdiff.pretrained.presets import KINDS, LOW_RES, MORE, PIPELINES, PREFIXES, PRESETS, SHARED
from jaxdiff.pretrained.read import Bundle, Component, Shardings, placed
from jaxdiff.pretrained.rules import (
    Rules,
    Stored,
    TensorError,
    clip,
    compvis,
    few,
    flatten,
    from_tensors,
    places,
    to_tensors,
    under,
)

__all__ = ["KINDS", "LOW_RES", "PRESETS", "configs_of", "detect", "prefixes", "read", "rules", "write"]

# training's leftovers, tables that follow from others, what only a training loss or CLIP's score looks at
_SKIPPED = re.compile(
    r"model_ema\..*|betas|model\.betas|alphas_cumprod.*|sqrt_.*|log_one_minus.*|posterior_.*|lvlb_weights|logvar|"
    r"global_step|scale_factor|denoiser\..*|low_scale_model\..*|first_stage_model\.(loss|model_ema)\..*|"
    r".*\.position_ids|.*\.attn_mask|(.*\.)?logit_scale|"
    r"(cond_stage_model|conditioner\.embedders\.0)\.transformer\.(text_model\.)?text_projection(\.weight)?|"
    + "|".join(re.escape(name) for name in single_process.MARKERS)
)
_UNET, _EMA = f"{SHARED['unet']}.", "model_ema.diffusion_model"
_TELLING = tuple(f"{_UNET}{name}.weight" for name in ("input_blocks.0.0", "label_emb.0.0", "label_emb"))
"""The U-Net's tensors that tell models apart."""


def detect(tensors: Mapping[str, Any]) -> str:
    """Finds which of `PRESETS` a file's tensors are of.

    Raises:
      ValueError: if they are of none.
    """
    labelled = f"{_UNET}label_emb.0.0.weight" in tensors  # sizes and pooled text: Stable Diffusion XL's
    starts = {
        "conditioner.embedders.1.model.": "sdxl",
        "conditioner.embedders.0.model.": "sdxl_refiner" if labelled else "sd2",
        "conditioner.embedders.0.transformer.": "sd1",
        "cond_stage_model.model.": "upscale" if f"{_UNET}label_emb.weight" in tensors else "sd2",
        "cond_stage_model.transformer.": "sd1",
    }
    for start, name in starts.items():
        if any(tensor.startswith(start) for tensor in tensors):
            return name
    raise ValueError(
        f"no single-file checkpoint of Stable Diffusion: none of its {len(tensors)} tensors begins with "
        f"{', '.join(starts)}, but there is {few(sorted(tensors), 3) or 'nothing'}; LoRAs (--lora) and single networks "
        "(--vae, --controlnet) go with a model"
    )


def read(
    path: Path | str,
    *,
    tokenizer: Path | str | None = None,
    prediction: str | None = None,
    dtype: Any = None,
    shardings: Shardings | None = None,
    configs: Mapping[str, Json] | None = None,
    without: Collection[str] = (),
    weights: bool = True,
) -> Bundle:
    """Returns a pipeline from one file (.safetensors, or .ckpt through the restricted loader).

    Args:
      path: the file.
      tokenizer: a directory with CLIP's vocab.json and merges.txt; the file has none.
      prediction: epsilon or v_prediction; needed for files of Stable Diffusion 2 that do not tell.
      dtype: dtype of the parameters; None keeps what the file has.
      shardings: where parameters go; None: to the default device.
      configs: config.json by part, where they are not the published models'.
      without: parts that are not read, and need not be in the file.
      weights: whether to read them; else parameters are shapes.

    Raises:
      ValueError: if the file is not such a checkpoint, tensors do not fit, or `prediction` is needed.
    """
    name, tensors, note = _tensors(path)
    described, scheduler = _described(name, tensors, note, prediction, configs)
    left = {tensor for tensor in tensors if not _SKIPPED.fullmatch(tensor)}
    averaged = {} if _plain(tensors) else {k: x for k, x in tensors.items() if k.startswith(_EMA)}
    if averaged and "unet" not in without:
        warnings.warn(f"{path} has only averaged weights of its U-Net (model_ema): they are taken", stacklevel=2)
    components, problems = {}, []
    for part, prefix in prefixes(name).items():
        own = {tensor: tensors[tensor] for tensor in left if tensor.startswith(prefix + ".")}
        left -= own.keys()
        if part in without:
            continue
        if not own:
            instead = ": pass vae, the directory or file of one" if part == "vae" else ""
            problems.append(f"it has no {part} (no tensor begins with {prefix}){instead}")
            continue
        json = {"_class_name": KINDS[part], **described[part]}
        one = family(KINDS[part])
        net = one.config(json)
        shapes = one.shapes(net, json)
        if not weights:
            components[part] = Component(KINDS[part], json, net, shapes)
            continue
        where = None if shardings is None else (lambda shapes, part=part: shardings(part, shapes))
        table = rules(part, prefix, net, json)
        if part == "unet" and averaged:
            own |= _named(averaged, {place.name for leaf in flatten(shapes) for place in places(leaf, table)})
        try:
            params = from_tensors(own, shapes, table, placed(shapes, dtype, where))
            components[part] = Component(KINDS[part], json, net, params)
        except TensorError as error:
            problems.append(f"{part}: {error}")
    if left:
        problems.append(f"of no part: {few(sorted(left))}")
    if problems:
        raise TensorError(f"{path} does not fit {name}: {few(problems)}")
    index: dict[str, Any] = {"_class_name": PIPELINES[name], "scheduler": ["diffusers", scheduler["_class_name"]]}
    for part, component in components.items():
        index[part] = ["transformers" if part.startswith("text") else "diffusers", component.kind]
        if part.startswith("text"):
            index[part.replace("text_encoder", "tokenizer")] = ["transformers", "CLIPTokenizer"]
    index |= MORE.get(name, {})
    words, schedulers = {}, dict[str, Any](scheduler=scheduler)
    if "low_res_scheduler" in index:
        schedulers["low_res_scheduler"] = LOW_RES
    if tokenizer:
        tokenizer_read = clip_tokenizer.read(tokenizer)
        for part, prefix in PREFIXES[name].items():
            pad = END if prefix.endswith(".transformer") else "!"  # CLIP's, OpenCLIP's
            words[part.replace("text_encoder", "tokenizer")] = dataclasses.replace(tokenizer_read, pad=pad)
    return Bundle(PIPELINES[name], index, components, words, schedulers)


def configs_of(path: Path | str) -> dict[str, dict[str, Any]]:
    """Returns config.json of each part that the model of a file has, whether the part is in the file or not."""
    name, tensors, note = _tensors(path)
    return _described(name, tensors, note, "epsilon", None)[0]


def _tensors(path: Path | str) -> tuple[str, dict[str, Stored], dict[str, str]]:
    """Returns the model in `PRESETS`, a file's tensors by the names that `prefixes` has, and its metadata."""
    path = Path(path)
    tensors = files.read_tensors(path)
    note = files.metadata(path) if path.suffix == ".safetensors" else {}
    if not _plain(tensors):
        tensors |= {k: x for k, x in _named(tensors, _TELLING).items() if k in _TELLING}
    name = detect(tensors)
    if name in ("sd1", "sd2"):  # Stability AI's layout
        old, new = "conditioner.embedders.0.", "cond_stage_model."
        tensors = {new + k.removeprefix(old) if k.startswith(old) else k: x for k, x in tensors.items()}
    return name, tensors, note


def _plain(tensors: Mapping[str, Any]) -> bool:
    """Returns whether a file has plain weights of the U-Net, beside those that `_tensors` gives their plain names."""
    return any(name.startswith(_UNET) and name not in _TELLING for name in tensors)


def _named(tensors: Mapping[str, Stored], names: Collection[str]) -> dict[str, Stored]:
    """Renames averaged weights to those of the plain `names`, and keeps the others as they are."""
    plain = {_EMA + name.removeprefix(_UNET).replace(".", ""): name for name in names}
    return {plain.get(name, name): x for name, x in tensors.items()}


def _described(
    name: str,
    tensors: Mapping[str, Any],
    note: Mapping[str, str],
    prediction: str | None,
    configs: Mapping[str, Json] | None,
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Returns config.json by part, and the scheduler_config.json, of a file with these tensors and metadata."""
    found = {part: dict((configs or {}).get(part, preset)) for part, preset in PRESETS[name].items()}
    first = tensors.get(f"{_UNET}input_blocks.0.0.weight")
    if first is not None and len(first.shape) == 4:
        found["unet"].setdefault("in_channels", first.shape[1])
    channels = found["unet"].get("in_channels", 4)
    if name == "sdxl" and channels == 8 and "edm_vpred.sigma_max" in tensors:
        raise ValueError(
            "this file is CosXL's editing model (8 channels, edm_vpred), which joins the picture's latents in another "
            "scale (is_cosxl_edit) and is not supported: take another model that edits, such as InstructPix2Pix"
        )
    scheduler = single_process.read(name, tensors, note, prediction, channels)
    if name == "sd2" and scheduler["prediction_type"] == "v_prediction":
        found["unet"]["sample_size"] = 96  # 768 pixels
    if said := single_process.latents(tensors):
        found["vae"] |= {**said, "scaling_factor": 0.5}
    return found, scheduler


def write(bundle: Bundle, path: Path | str) -> None:
    """Writes a bundle's U-Net, autoencoder and text encoders as one safetensors file, in its authors' layout.

    A warning names what the bundle says and the file cannot.

    Raises:
      ValueError: if the bundle has not the parts of one of `PRESETS`, or a process that a file cannot say.
    """
    name = _layout(bundle)
    markers, note = single_process.write(name, bundle.schedulers["scheduler"], bundle.components["vae"].json)
    tensors: dict[str, Any] = dict(markers)
    for part, prefix in prefixes(name).items():
        one = bundle.components[part]
        tensors |= to_tensors(one.params, rules(part, prefix, one.config, one.json))
    if lost := _unsaid(name, bundle, *_described(name, tensors, note, None, None)):
        warnings.warn(f"one file does not say {few(lost)}: {name}'s own are read from it", stacklevel=2)
    if "v_pred" in markers and name in ("sd1", "sdxl_refiner", "upscale"):
        warnings.warn(f"other tools look for v_pred in no file of {name}: tell them", stacklevel=2)
    files.write_safetensors(path, tensors, note)


def _unsaid(name: str, bundle: Bundle, described: Mapping[str, Json], scheduler: Json) -> list[str]:
    """Returns what a bundle says that is otherwise when its file is read with these configs."""
    lost = single_process.unsaid(bundle.schedulers["scheduler"], scheduler)
    if "low_res_scheduler" in bundle.schedulers:
        lost += single_process.unsaid(bundle.schedulers["low_res_scheduler"], LOW_RES, noise=True)
    own = {"force_zeros_for_empty_prompt": name == "sdxl", "max_noise_level": 350, **MORE.get(name, {})}
    lost += [f"{k}={v!r}" for k, v in bundle.index.items() if k in own and not isinstance(v, list) and v != own[k]]
    for part, json in described.items():
        one, back = bundle.components[part], family(KINDS[part]).config(json)
        fields = [field.name for field in dataclasses.fields(back) if field.name != "dtype"]
        lost += [f"{part}.{f}={getattr(one.config, f)!r}" for f in fields if getattr(one.config, f) != getattr(back, f)]
        if one.json.get("sample_size") not in (None, json.get("sample_size")) and part == "unet":
            lost.append(f"unet.sample_size={one.json['sample_size']!r}")
    return lost


def prefixes(name: str) -> dict[str, str]:
    """Returns how the tensors of each part begin."""
    return {**SHARED, **PREFIXES[name]}


def rules(part: str, prefix: str, net: Any, json: Json) -> Rules:
    """Returns the table of one part, prefix included."""
    if part == "unet":
        table = compvis.unet_rules(net, json)
    elif part == "vae":
        table = compvis.autoencoder_rules(net)
    elif prefix.endswith(".transformer"):
        table = clip.TEXT_RULES
    else:
        table = compvis.openclip_rules(net.layers)
    return under(prefix, "", table)


def _layout(bundle: Bundle) -> str:
    parts = bundle.components
    texts = {name for name in parts if name.startswith("text_encoder")}
    for name in ("unet", "vae"):
        if name in parts and parts[name].kind != KINDS[name]:
            raise ValueError(f"one file has no room for a {parts[name].kind} as {name}: write a directory instead")
    if "unet" in parts and "vae" in parts:
        if texts == {"text_encoder", "text_encoder_2"}:
            return "sdxl"
        if texts == {"text_encoder_2"}:
            return "sdxl_refiner"
        if texts == {"text_encoder"} and parts["text_encoder"].config.activation == "quick_gelu":
            return "sd1"
        if texts == {"text_encoder"}:
            return "upscale" if parts["unet"].config.labels else "sd2"
    raise ValueError(f"{bundle.kind} with {', '.join(sorted(parts))} has no single-file layout: write a directory")
