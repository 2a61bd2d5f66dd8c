"""Reads a LoRA file: every tensor finds its module and its role there, or is named in the error."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import jax
import numpy as np

from jaxdiff.pretrained import files
from jaxdiff.pretrained.lora import forms
from jaxdiff.pretrained.lora.adapter_config import AdapterConfig
from jaxdiff.pretrained.lora.names import Module, modules, split
from jaxdiff.pretrained.read import Component
from jaxdiff.pretrained.rules import Stored, TensorError, flatten
from jaxdiff.pretrained.widths import of_context

Lora = Mapping[str, Mapping[str, Mapping[str, jax.Array]]]
"""{component: {path of a parameter: its factors}}; a pytree. `forms` says which factors there are."""

_OTHER_KINDS = {
    "oft_blocks": "OFT",
    "oft_diag": "OFT",
    "oft_R": "OFT",
    ".a1.weight": "GLoRA",
    "set_weight": "set of weights",
    "reshape_weight": "LoRA that changes shapes",
    "bias_indices": "LyCORIS with sparse biases",
    "vera_lambda": "VeRA",
    "lora_embedding": "LoRA of token embeddings",
    "bundle_emb": "LoRA with textual inversions in it",
}
_OTHER_MODELS = {
    "double_blocks": "Flux",
    "single_transformer_blocks": "Flux",
    "joint_blocks": "Stable Diffusion 3",
    "lora_prior": "Stable Cascade",
    "transformer.transformer_blocks": "a diffusion transformer",
    "lora_transformer_": "a diffusion transformer",
    "diffusion_model.blocks": "a diffusion transformer",
    "diffusion_model.layers": "a diffusion transformer",
}


def read(path: Path | str, components: Mapping[str, Component], part: str = "unet") -> Lora:
    """Returns the LoRA of a file, or of a directory with pytorch_lora_weights or adapter_model.

    Args:
      path: what diffusers, PEFT, kohya's scripts, LyCORIS, OneTrainer or ComfyUI save; `names` has the names.
      components: the networks it is for; a bundle's.
      part: the component of a PEFT adapter, which does not name it.

    Raises:
      FileNotFoundError: if a directory has neither.
      ValueError: if the file is of another kind (OFT, GLoRA) or for another model, or notes what is not supported.
      TensorError: names tensors that fit no module, lack their partner, have a wrong shape or are not finite.
    """
    path = Path(path)
    if path.is_dir():
        path = _file(path)
    tensors = files.read_tensors(path)
    for mark, kind in _OTHER_KINDS.items():
        if name := next((name for name in tensors if mark in name), None):
            raise ValueError(f"{path} is an adapter of another kind ({kind}: {name}), which is not supported")
    config, known = AdapterConfig(path), modules(components, part)
    groups: dict[Module, dict[str, str]] = {}
    problems: list[str] = []
    for name, x in tensors.items():
        label, role = split(name)
        module = known.get(label)
        if module is None or not role:
            problems.append(f"unexpected: {name} {tuple(x.shape)}")
            continue
        roles = groups.setdefault(module, {})
        if role in roles:
            problems.append(f"twice: {name}, which is also {roles[role]}")
        roles[role] = name
    shapes = {name: {p: tuple(x.shape) for p, x in flatten(part.params).items()} for name, part in components.items()}
    lora: dict[str, dict[str, dict[str, jax.Array]]] = {}
    for module, roles in groups.items():
        parts_read = {role: np.asarray(tensors[name]) for role, name in roles.items()}
        names = {module.name, module.name.removesuffix(".0")}
        try:
            scale = _scale(parts_read, config, module.component, names)
            for leaf, parts, leaf_scale in _targets(module, parts_read, scale):
                target = f"{module.path}/{leaf}"
                if target not in shapes[module.component]:
                    raise ValueError(f"there is no {leaf} here")
                factors = forms.factors(parts, leaf_scale, shapes[module.component][target])
                lora.setdefault(module.component, {})[target] = factors
        except _MissingError as error:
            problems.append(f"missing: {error} of {next(iter(roles.values()))}")
        except (ValueError, TypeError) as error:
            there = ", ".join(f"{name} {tuple(tensors[name].shape)}" for name in list(roles.values())[:4])
            shape = shapes[module.component].get(f"{module.path}/{module.leaf}")
            problems.append(f"wrong: {there} for {module.name} {shape}: {str(error).splitlines()[0][:160]}")
    if problems:
        if other := _for_another_model(tensors, components):
            raise ValueError(f"{path} is a LoRA for {other}")
        noted = files.metadata(path).get("ss_base_model_version") if path.suffix == ".safetensors" else None
        base = f" (it was trained for {noted[:80]})" if noted else ""
        raise TensorError(f"{path}: {len(problems)} tensors do not fit these networks: {_listed(problems)}{base}")
    if not lora:
        raise ValueError(f"{path} holds no LoRA: it is empty")
    for component, targets in lora.items():
        if config.wants_magnitudes(component) and not any("magnitude" in f for f in targets.values()):
            raise ValueError(f"{path}: use_dora is noted for {component}, but it has no lora_magnitude_vector")
    if not any(f["scale"].any() for targets in lora.values() for f in targets.values()):
        raise ValueError(f"{path} would change nothing: alpha is 0 in all of it")
    return lora


class _MissingError(ValueError):
    """Factors that the others need."""


def _scale(tensors: Mapping[str, np.ndarray], config: AdapterConfig, component: str, names: Iterable[str]) -> float:
    for role, x in tensors.items():
        if 0 in x.shape or (role in forms.MATRICES and x.ndim < 2) or (role == "dora_scale" and not x.ndim):
            raise ValueError(f"{role} is {x.shape}")
        if not np.isfinite(x.astype(np.float32)).all():
            raise ValueError(f"{role} is not finite")
        if role in ("alpha", "scale", "on_input") and x.size != 1:
            raise ValueError(f"{role} is {x.shape}, expected one number")
    rank = forms.rank(tensors)
    if "scale" in tensors:
        return float(tensors["scale"].reshape(()))
    if "alpha" in tensors:
        return float(tensors["alpha"].reshape(())) / rank if rank else 1.0
    return config.scale(component, names, rank) if rank or "lokr_w1" in tensors else 1.0


def _targets(
    module: Module, tensors: Mapping[str, np.ndarray], scale: float
) -> Iterable[tuple[str, dict[str, np.ndarray], float]]:
    """Returns the parameters of a module that change: the name of each, its factors by role, and their scale.

    Raises:
      _MissingError: if the factors are no whole form.
    """
    magnitudes = tensors.keys() & {"dora_scale", "magnitude"}
    inner = tensors.keys() - magnitudes - {"alpha", "scale", "diff_b", "up_bias"}
    if inner:
        if lost := forms.lacking(inner):
            raise _MissingError(lost)
        if magnitudes and "ia3" in inner:
            raise ValueError("IA3 takes no magnitude")
        yield module.leaf, {role: tensors[role] for role in inner | magnitudes}, scale
    elif magnitudes or not tensors.keys() & {"diff_b", "up_bias"}:
        raise _MissingError("the factors")
    for role, own in (("diff_b", 1.0), ("up_bias", scale)):
        if role in tensors:
            yield "bias", {"diff": tensors[role]}, own


def _for_another_model(tensors: Mapping[str, Stored], components: Mapping[str, Component]) -> str:
    """Returns the two models, where a LoRA is not for this one; "" where that does not show."""
    here = components["unet"].json.get("cross_attention_dim") if "unet" in components else None
    ours = of_context(here)
    for mark, model in _OTHER_MODELS.items():
        if any(mark in name for name in tensors):
            return f"{model}: this model is {ours}"
    for name, x in tensors.items():
        label, role = split(name)
        context = "attn2" in label and label.endswith(("to_k", "to_v")) and role in ("down", "hada_w1_b")
        if context and len(x.shape) > 1 and x.shape[1] != here:
            return f"{of_context(x.shape[1])}: this model is {ours}"
    second = ("lora_te2", "text_encoder_2.", "clip_g.")
    if "text_encoder_2" not in components and any(mark in name for name in tensors for mark in second):
        return f"SDXL, with a second text encoder: this model is {ours}"
    return ""


def _listed(problems: list[str]) -> str:
    more = f"; and {len(problems) - 10} more" if len(problems) > 10 else ""
    return "; ".join(problems[:10]) + more


def _file(path: Path) -> Path:
    for stem in ("pytorch_lora_weights", "adapter_model"):
        for ending in ("safetensors", "bin"):
            if (path / f"{stem}.{ending}").is_file():
                return path / f"{stem}.{ending}"
    raise FileNotFoundError(
        f"no LoRA in {path}: expected pytorch_lora_weights or adapter_model with .safetensors or .bin"
    )
