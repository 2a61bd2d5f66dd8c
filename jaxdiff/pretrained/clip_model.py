"""CLIP's two encoders with their tokenizer: of a CLIPModel of transformers, or of a directory with folders of them."""

from pathlib import Path
from typing import NamedTuple

from jaxdiff.data.tokenizer_clip import ClipTokenizer
from jaxdiff.pretrained import clip_tokenizer, files
from jaxdiff.pretrained.read import Component, read_component, read_json
from jaxdiff.pretrained.rules import clip as rules
from jaxdiff.pretrained.rules import from_tensors

TEXT, IMAGE = "CLIPTextModelWithProjection", "CLIPVisionModelWithProjection"


class ClipParts(NamedTuple):
    """CLIP's encoders, whose vectors lie in one space, and its tokenizer."""

    image: Component
    text: Component
    tokenizer: ClipTokenizer


def read(folder: Path) -> ClipParts:
    """Reads a directory with config.json of a CLIPModel, its weights and its tokenizer; or with a folder for each part.

    Raises:
      FileNotFoundError: if one is missing.
      ValueError: for a model of another kind, or tensors that do not fit.
    """
    if all((folder / name).is_dir() for name in ("image_encoder", "text_encoder", "tokenizer")):
        parts = (read_component(folder / "image_encoder"), read_component(folder / "text_encoder"))
        return check(ClipParts(*parts, clip_tokenizer.read(folder / "tokenizer")), folder)
    json = read_json(folder / "config.json")
    kinds = {"text_config": dict, "vision_config": dict, "projection_dim": int}
    if wrong := [n for n, kind in kinds.items() if not (isinstance(json, dict) and isinstance(json.get(n), kind))]:
        raise ValueError(f"{folder} is not a CLIPModel of transformers: its config.json has no {', '.join(wrong)}")
    width = {"projection_dim": json["projection_dim"]}
    text = rules.text_config({**json["text_config"], **width}, projection=True)
    image = rules.image_config({**json["vision_config"], **width})
    tensors = {name: x for name, x in files.read_weights(folder).items() if name != "logit_scale"}
    of_text = {name: x for name, x in tensors.items() if name.startswith("text")}
    of_image = {name: x for name, x in tensors.items() if name not in of_text}
    return ClipParts(
        Component(
            IMAGE,
            rules.image_json(image),
            image,
            from_tensors(of_image, rules.image_shapes(image, {}), rules.IMAGE_RULES),
        ),
        Component(
            TEXT, rules.text_json(text), text, from_tensors(of_text, rules.text_shapes(text, {}), rules.TEXT_RULES)
        ),
        clip_tokenizer.read(folder),
    )


def check(parts: ClipParts, path: Path) -> ClipParts:
    """Refuses parts of other classes, without projections, or into spaces of different widths."""
    for part, expected in ((parts.image, IMAGE), (parts.text, TEXT)):
        if part.kind != expected:
            raise ValueError(f"{path} has a {part.kind}: expected a {expected}, with the projection of its vectors")
    if (a := parts.image.config.projection) != (b := parts.text.config.projection):
        raise ValueError(f"{path}: vectors of pictures have {a} numbers and those of texts {b}: expected as many")
    return parts
