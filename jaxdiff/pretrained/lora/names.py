"""Names of a model's modules in LoRA files, and the suffixes that follow them.

The names follow from the model's own table of names. For a module `m` ("down_blocks.0.attentions.0.proj_in"), or for a
U-Net also by the names of the original code ("input_blocks.1.1.proj_in"):

    diffusers, PEFT   unet.m, text_encoder.m, text_encoder_2.m; m and base_model.model.m, of one component
    old diffusers     unet....attn1.processor.to_q_lora for to_q, ...to_out_lora for to_out.0
    kohya, LyCORIS    lora_unet_m, lora_te_m, lora_te1_m, lora_te2_m, with _ for every . of m; SimpleTuner: lycoris_m
    OneTrainer        kohya's; or lora_unet.m, lora_te1.m; or unet.m, clip_l.m, clip_g.m
    ComfyUI           diffusion_model.m, text_encoders.clip_l.transformer.m
"""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from jaxdiff.pretrained.components import family
from jaxdiff.pretrained.read import Component
from jaxdiff.pretrained.rules import compvis, flatten, places

_DOTTED = {
    "unet": ("unet.", "lora_unet.", "diffusion_model.", "model.diffusion_model."),
    "text_encoder": (
        *("text_encoder.", "lora_te.", "lora_te1.", "clip_l.", "clip_l.transformer."),
        *("text_encoders.clip_l.transformer.", "text_encoders.clip_h.transformer."),
    ),
    "text_encoder_2": (
        "text_encoder_2.",
        "lora_te2.",
        "clip_g.",
        "clip_g.transformer.",
        "text_encoders.clip_g.transformer.",
    ),
}
_FLAT = {
    "unet": ("lora_unet_", "lycoris_"),
    "text_encoder": ("lora_te_", "lora_te1_"),
    "text_encoder_2": ("lora_te2_",),
}
_PEFT = "base_model.model."
_WEIGHTS = ("kernel", "scale", "embedding")
_ROLES = tuple(
    (re.compile(rf"(.+?){pattern}"), role)
    for pattern, role in (
        (r"\.lora_A(?:\.[^.]+)??(?:\.weight)?", "down"),
        (r"\.lora_B(?:\.[^.]+)??\.bias", "up_bias"),
        (r"\.lora_B(?:\.[^.]+)??(?:\.weight)?", "up"),
        (r"(?:\.lora_|[._]lora\.|\.lora_linear_layer\.)down\.weight", "down"),
        (r"(?:\.lora_|[._]lora\.|\.lora_linear_layer\.)up\.weight", "up"),
        (r"\.lora_mid\.weight", "mid"),
        (r"\.lora_magnitude_vector(?:\.[^.]+)??(?:\.weight)?", "magnitude"),
        (r"\.dora_scale", "dora_scale"),
        (r"(?:_lora)?\.alpha", "alpha"),
        (r"\.scale", "scale"),
        (r"\.(?:diff|w_norm)", "diff"),
        (r"\.(?:diff_b|b_norm)", "diff_b"),
        (r"\.on_input", "on_input"),
        (r"\.weight", "ia3"),
    )
)
_OWN_ROLE = re.compile(r"(.+)\.(hada_w[12]_[ab]|hada_t[12]|lokr_w[12](?:_[ab])?|lokr_t2)(?:\.[^.]+)?")


class Module(NamedTuple):
    """A module that a LoRA may change.

    Attributes:
      component: "unet".
      path: path of our module, "down_0/attn_0/proj_in".
      leaf: its weight's name, "kernel".
      name: theirs, "down_blocks.0.attentions.0.proj_in".
    """

    component: str
    path: str
    leaf: str
    name: str


def split(name: str) -> tuple[str, str]:
    """Returns the module of a tensor, and the tensor's role in it; a role of "" is none that is known."""
    if match := _OWN_ROLE.fullmatch(name):
        return match[1], match[2]
    return next(((match[1], role) for pattern, role in _ROLES if (match := pattern.fullmatch(name))), (name, ""))


def modules(components: Mapping[str, Component], part: str) -> dict[str, Module]:
    """Returns the modules of a model by all the names that they may go by.

    `part` is the component that needs no prefix.
    """
    found: dict[str, Module] = {}
    for component in components.keys() & _DOTTED.keys():
        dotted, flat = _DOTTED[component], _FLAT[component]
        # SDXL's refiner has the second encoder alone, which is then the text encoder
        if component == "text_encoder_2" and "text_encoder" not in components:
            dotted, flat = (*dotted, *_DOTTED["text_encoder"]), (*flat, *_FLAT["text_encoder"])
        starts = [*dotted, *(start + _PEFT for start in dotted), *(_PEFT + start for start in dotted)]
        starts += ["", _PEFT] if component == part else []
        for name, module in _own_names(component, components[component]):
            found |= {start + alias: module for start in starts for alias in (name, *_old_names(name))}
            found |= {start + name.replace(".", "_"): module for start in flat}
    return found


def _own_names(name: str, component: Component) -> Iterator[tuple[str, Module]]:
    """Returns the modules with weights, each by every name that a table has for it."""
    tables = [family(component.kind).rules(component.config, component.json)]
    if name == "unet":
        tables.append(compvis.unet_rules(component.config, component.json))
    for path in flatten(component.params):
        all_places = [place for table in tables for place in places(path, table)]
        names = [p.name.removesuffix(".weight") for p in all_places if p.leaf in _WEIGHTS and not p.part]
        for alias in names:
            yield alias, Module(name, *path.rpartition("/")[::2], names[0])


def _old_names(name: str) -> Iterator[str]:
    """Returns what diffusers before 0.22 calls the four products of an attention."""
    head, _, last = name.removesuffix(".0").rpartition(".")
    if last in ("to_q", "to_k", "to_v", "to_out"):
        yield f"{head}.processor.{last}"
    elif last in ("q_proj", "k_proj", "v_proj", "out_proj"):
        yield f"{head}.to_{last.removesuffix('_proj')}"
