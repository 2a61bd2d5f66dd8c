"""GLIDE's checkpoints (base.pt, upsample.pt, and those that fill), one file a stage: read, and written as safetensors.

A file holds a U-Net and the text encoder that was trained with it; their numbers follow from the tensors, and so does
what the model does, by the channels that the U-Net takes: 3 of the noisy picture, and beside them 4 of the known part
and where it is, 3 of the small picture. Its noise is the cosine schedule's, or where it enlarges the linear one's.

Pictures are made as the authors do: by ancestral sampling with the learned variance, guided, over evenly spaced steps;
or where it enlarges, without guidance, by DDIM (filling, ancestral again), whose 27 steps are denser near the end. They
multiply the first noise of that by 0.997, which is left to the caller's `init_noise`.

Source: Nichol et al. 2021, arXiv 2112.10741, and its released code.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from jaxdiff.data import tokenizer_gpt
from jaxdiff.diffusion import schedule
from jaxdiff.pretrained import files, single_process
from jaxdiff.pretrained.read import Bundle, Component, Shardings, placed
from jaxdiff.pretrained.rules import Stored, TensorError, from_tensors, glide, to_tensors
from jaxdiff.pretrained.schedulers.placing import Placing
from jaxdiff.pretrained.schedulers.process import Process

KIND = "GLIDE"
_UNET, _TEXT = "Text2ImUNet", "GlideText"


def found(path: Path) -> bool:
    """Returns whether a file is a checkpoint of GLIDE's.

    Raises:
      ValueError: if it is no file of tensors.
    """
    return {"transformer_proj.weight", "input_blocks.0.0.weight"} <= files.read_tensors(path).keys()


def read(
    path: Path,
    *,
    tokenizer: Path | str | None = None,
    dtype: Any = None,
    shardings: Shardings | None = None,
    without: Collection[str] = (),
) -> Bundle:
    """Returns one stage.

    Args:
      path: the file, .pt (through the restricted reader) or .safetensors.
      tokenizer: the folder with encoder.json and vocab.bpe; None: the file's own, if it has them.
      dtype: dtype of the parameters; None keeps what the file has.
      shardings: where parameters go; None: to the default device.
      without: parts that are not read: `tokenizer`, which pictures need and a conversion does not.

    Raises:
      FileNotFoundError: if there is no tokenizer.
      ValueError: if tensors do not fit GLIDE's networks, or the vocabulary is of another size.
    """
    path, tensors = Path(path), files.read_tensors(path)
    try:
        unet, text = glide.configs(tensors)
    except ValueError as error:
        raise TensorError(f"{path}: {error}") from None
    channels = tensors["input_blocks.0.0.weight"].shape[1]
    shapes = dict(zip(("unet", "text_encoder"), glide.shapes(unet, text, channels), strict=True))
    # the published code draws 64 pixels with 4 resolutions and 256 with 6, and others likewise
    size = {"sample_size": 2 ** (len(unet.channels) + 2)}
    parts, apart = {}, glide.split(tensors)
    parts_found: tuple[tuple[str, str, Any, Any, Any], ...] = (
        ("unet", _UNET, size, unet, glide.unet_rules(unet)),
        ("text_encoder", _TEXT, {}, text, glide.TEXT),
    )
    for name, kind, json, net, rules in parts_found:
        own = {k: x for k, x in apart.items() if glide.is_text(k) == (name == "text_encoder")}
        where = None if shardings is None else (lambda shapes, name=name: shardings(name, shapes))
        try:
            params = from_tensors(own, shapes[name], rules, placed(shapes[name], dtype, where))
        except TensorError as error:
            raise TensorError(f"{path} is not GLIDE's {glide.CHANNELS[channels]}: {name}: {error}") from None
        parts[name] = Component(kind, json, net, params)
    larger, fills = channels in (6, 10), channels in (7, 10)
    index = {"picture": "low_resolution"} if larger else {}
    words = {} if "tokenizer" in without else {"tokenizer": _tokenizer(path, tokenizer, text.vocabulary)}
    guidance = None if larger else 5.0 if fills else 3.0
    return Bundle(KIND, {**index, "known": fills}, parts, words, {}, native=_process(larger, fills), guidance=guidance)


def _process(larger: bool, fills: bool) -> Process:
    noise, placing = (schedule.linear(), "glide") if larger else (schedule.cosine(), "linspace")
    sampler, options = ("ddim", {}) if larger and not fills else ("ddpm", {"variance": "learned"})
    return Process(noise, "eps", sampler, Placing(spacing=placing), options, clip=1.0, says="variance")


def _tokenizer(path: Path, folder: Path | str | None, vocabulary: int) -> tokenizer_gpt.GptTokenizer:
    if folder is None and not tokenizer_gpt.found(path.parent):
        raise FileNotFoundError(
            f"{path} has no tokenizer: put {' and '.join(tokenizer_gpt.FILES)} of glide-text2im into its folder "
            f"(plain or .gz), or pass tokenizer, the folder that has them"
        )
    words = tokenizer_gpt.read(Path(folder or path.parent))
    if words.size != vocabulary:
        raise ValueError(
            f"{folder or path.parent} has a vocabulary of {words.size} tokens, and the text encoder of {path} knows "
            f"{vocabulary}: they do not belong together"
        )
    return words


def write(bundle: Bundle, path: Path | str) -> None:
    """Writes a stage as one safetensors file, with the names of its authors."""
    tensors: dict[str, Stored] = {}
    for name, rules in (("unet", glide.unet_rules(bundle.components["unet"].config)), ("text_encoder", glide.TEXT)):
        tensors |= to_tensors(bundle.components[name].params, rules)
    files.write_safetensors(path, glide.joined(tensors), single_process.signature())
