"""LoRA files: low-rank changes to the weights of a U-Net and text encoders, of diffusers, PEFT or kohya.

A LoRA changes some kernels W [.., i, o] to

    W + weight scale (down @ up),    down [.., i, r], up [r, o], scale = alpha / r.

`read` gives its factors by our parameters' paths; `merge` adds any number of them to parameters. `merge` is a pure
function: called once it fuses; called inside a compiled program, with the weights as arguments, it keeps them live.

The names follow from the model's own table of names. For a module `m` ("down_blocks.0.attentions.0.proj_in"):

    PEFT       unet.m.lora_A.weight, .lora_B.weight; or base_model.model.m...
    diffusers  unet.m.lora.down.weight, .lora.up.weight; unet....attn1.processor.to_q_lora.down.weight
    kohya      lora_unet_m.lora_down.weight, .lora_up.weight, with _ for every . of m; SDXL's also by CompVis' names

Source: Hu et al. 2021, arXiv 2106.09685, section 4.1.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.pretrained import files
from jaxdiff.pretrained.components import family
from jaxdiff.pretrained.read import Component, read_json
from jaxdiff.pretrained.rules import Rules, Stored, TensorError, compvis, flatten, places, unflatten
from jaxdiff.typing import Params

Lora = Mapping[str, Mapping[str, Mapping[str, jax.Array]]]
"""{component: {path of a kernel: {"down": [.., i, r], "up": [r, o], "scale": []}}}; a pytree."""

_KOHYA = {"unet": ("lora_unet_",), "text_encoder": ("lora_te_", "lora_te1_"), "text_encoder_2": ("lora_te2_",)}
_PAIRS = (
    ("lora_A.weight", "lora_B.weight"),
    ("lora.down.weight", "lora.up.weight"),
    ("lora_down.weight", "lora_up.weight"),
    ("lora_linear_layer.down.weight", "lora_linear_layer.up.weight"),
)
_OTHER_KINDS = {"dora_scale": "DoRA", "lora_magnitude_vector": "DoRA", "hada_w1": "LoHa", "lokr_w1": "LoKr"}


def read(path: Path | str, components: Mapping[str, Component], part: str = "unet") -> Lora:
    """The LoRA of a file, or of a directory with pytorch_lora_weights or adapter_model.

    Args:
      path: what diffusers, PEFT or kohya's scripts save.
      components: the networks it is for; a bundle's.
      part: the component of a PEFT adapter, which does not name it.

    Raises:
      FileNotFoundError: if a directory has neither.
      ValueError: if the file is of another kind (DoRA, LoHa, LoKr).
      TensorError: lists tensors that fit no module, lack their partner or have a wrong shape.
    """
    path = Path(path)
    if path.is_dir():
        path = _file(path)
    tensors = files.read_tensors(path)
    for mark, kind in _OTHER_KINDS.items():
        if name := next((name for name in tensors if mark in name), None):
            raise ValueError(f"{path} is a {kind} ({name}), which is not supported: only plain LoRA")
    scales = _scales(path)
    left, problems = set(tensors), []
    lora: dict[str, dict[str, dict[str, jax.Array]]] = {}
    for name, component in components.items():
        if name not in _KOHYA:
            continue
        tables = _tables(name, component)
        for target, leaf in flatten(component.params).items():
            for down, up, alpha in _candidates(name, tables, target, part):
                if down not in left:
                    continue
                left -= {down, up, alpha}
                if up not in tensors:
                    problems.append(f"missing: {up}, the partner of {down}")
                    break
                try:
                    factors = _factors(np.asarray(tensors[down]), np.asarray(tensors[up]), leaf.shape)
                except ValueError:
                    shapes = f"{tensors[down].shape} and {tensors[up].shape}"
                    problems.append(f"wrong shape: {down} and its partner are {shapes}, for {target} {leaf.shape}")
                    break
                rank = factors["up"].shape[0]
                scale = float(np.asarray(tensors[alpha])) / rank if alpha in tensors else scales(name, rank)
                lora.setdefault(name, {})[target] = {**factors, "scale": jnp.float32(scale)}
                break
    problems += [f"unexpected: {name} {tuple(tensors[name].shape)}" for name in sorted(left)]
    if problems:
        raise TensorError(f"{path}: {len(problems)} tensors do not fit these networks:\n  " + "\n  ".join(problems))
    return lora


def merge(params: Params, loras: Sequence[Mapping[str, Mapping[str, Any]]], weights: Any) -> Params:
    """Parameters of one component with LoRAs added.

    Args:
      params: the component's.
      loras: for each LoRA what it has for this component (`lora.get("unet", {})`).
      weights: [n]: how much of each; may be traced.
    """
    flat = dict(flatten(params))
    for n, lora in enumerate(loras):
        for path, factors in lora.items():
            kernel = flat[path]
            change = jnp.matmul(
                factors["down"].astype(jnp.float32), factors["up"].astype(jnp.float32), precision="highest"
            )
            flat[path] = (kernel.astype(jnp.float32) + weights[n] * factors["scale"] * change).astype(kernel.dtype)
    return unflatten(flat)


def write(path: Path | str, lora: Lora, components: Mapping[str, Component]) -> None:
    """One safetensors file that diffusers loads, with PEFT's names."""
    tensors: dict[str, np.ndarray | Stored] = {}
    for name, targets in lora.items():
        table = _table(components[name])
        for target, factors in targets.items():
            place = next(places(target, table))
            module = f"{name}.{place.name.removesuffix('.weight')}"
            down, up = np.asarray(factors["down"]), np.asarray(factors["up"])
            if place.kind == "conv":
                down, up = down.reshape((1,) * (4 - down.ndim) + down.shape), up[None, None]
                tensors[f"{module}.lora_A.weight"] = down.transpose(3, 2, 0, 1)
                tensors[f"{module}.lora_B.weight"] = up.transpose(3, 2, 0, 1)
            else:
                tensors[f"{module}.lora_A.weight"], tensors[f"{module}.lora_B.weight"] = down.T, up.T
            tensors[f"{module}.alpha"] = np.asarray(factors["scale"] * up.shape[-2], np.float32)
    files.write_safetensors(path, tensors)


def _table(component: Component) -> Rules:
    return family(component.kind).rules(component.config, component.json)


def _tables(name: str, component: Component) -> tuple[Rules, ...]:
    """The names its modules may go by: the library's, and for a U-Net those of the original code."""
    original = compvis.unet_rules(component.config, component.json) if name == "unet" else ()
    return _table(component), original


def _candidates(name: str, tables: tuple[Rules, ...], target: str, part: str) -> Iterator[tuple[str, str, str]]:
    """What the two factors and the alpha of a kernel may be called."""
    library, original = (
        [place.name.removesuffix(".weight") for place in places(target, table) if place.leaf == "kernel"]
        for table in tables
    )
    for module in library:
        for start in [f"{name}.", *(["", "base_model.model."] if name == part else [])]:
            for down, up in _PAIRS:
                yield f"{start}{module}.{down}", f"{start}{module}.{up}", f"{start}{module}.alpha"
            head, _, last = module.removesuffix(".0").rpartition(".")
            old = f"{start}{head}.processor.{last}_lora"
            yield f"{old}.down.weight", f"{old}.up.weight", f"{old}.alpha"
    for module in (*library, *original):
        for start in _KOHYA[name]:
            flat = start + module.replace(".", "_")
            yield f"{flat}.lora_down.weight", f"{flat}.lora_up.weight", f"{flat}.alpha"


def _factors(down: np.ndarray, up: np.ndarray, shape: tuple[int, ...]) -> dict[str, jax.Array]:
    """Theirs, [r, i, k, l] and [o, r, 1, 1] or [r, i] and [o, r], as ours for a kernel of `shape`.

    Raises:
      ValueError: if they do not fit it.
    """
    rank = down.shape[0]
    if up.size != rank * shape[-1]:
        raise ValueError
    ours = down.transpose(2, 3, 1, 0) if down.ndim == 4 else down.T
    return {
        "down": jnp.asarray(np.ascontiguousarray(ours.reshape(*shape[:-1], rank))),
        "up": jnp.asarray(np.ascontiguousarray(up.reshape(shape[-1], rank).T)),
    }


def _file(path: Path) -> Path:
    for stem in ("pytorch_lora_weights", "adapter_model"):
        for ending in ("safetensors", "bin"):
            if (path / f"{stem}.{ending}").is_file():
                return path / f"{stem}.{ending}"
    raise FileNotFoundError(
        f"no LoRA in {path}: expected pytorch_lora_weights or adapter_model with .safetensors or .bin"
    )


def _scales(path: Path) -> Callable[[str, int], float]:
    """(component, rank) -> alpha / rank as far as the file's header or adapter_config.json tell; else 1."""
    config: dict[str, Any] = {}
    if path.suffix == ".safetensors":
        config = json.loads(files.metadata(path).get("lora_adapter_metadata", "{}"))
    if path.stem == "adapter_model" and (path.parent / "adapter_config.json").is_file():
        config = read_json(path.parent / "adapter_config.json")

    def scale(name: str, rank: int) -> float:
        field = lambda key: config.get(f"{name}.{key}", config.get(key))
        if field("alpha_pattern"):
            raise ValueError(f"{path}: alpha_pattern={field('alpha_pattern')} is not supported: only one lora_alpha")
        alpha = field("lora_alpha")
        return 1.0 if alpha is None else alpha / (rank**0.5 if field("use_rslora") else rank)

    return scale
