"""What PEFT notes beside the tensors: adapter_config.json, or diffusers' lora_adapter_metadata in the file's header.

A field either tells the scale of the factors, or has no effect once training is over, or must have the value that means
nothing; any other is refused by its name.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jaxdiff.pretrained import files
from jaxdiff.pretrained.read import read_json

HONOURED = {
    *("peft_type", "r", "rank_pattern", "lora_alpha", "alpha", "alpha_pattern"),
    *("use_rslora", "use_dora", "lora_bias", "init_lora_weights"),
}
WITHOUT_EFFECT = {
    *("task_type", "peft_version", "auto_mapping", "base_model_name_or_path", "revision", "inference_mode"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "ensure_weight_tying"),
    *("lora_dropout", "rank_dropout", "module_dropout", "rank_dropout_scale", "init_weights", "runtime_config"),
    *("megatron_config", "megatron_core", "loftq_config", "eva_config", "corda_config", "lora_ga_config"),
    *("qalora_group_size", "use_effective_conv2d", "decompose_both", "decompose_factor"),
}
_KINDS = ("LORA", "LOHA", "LOKR")
_PLAIN_START = (True, False, None, "gaussian", "eva", "orthogonal")
"""How factors may have begun: other ways change the base model's weights too."""


class AdapterConfig:
    """The notes of one file; without any, scales are 1."""

    def __init__(self, path: Path):
        self.path, self._fields = path, _read(path)

    def _of(self, component: str) -> dict[str, Any]:
        """The fields of a component: diffusers writes `unet.r`, PEFT `r`.

        Raises:
          ValueError: for a field that is not supported.
        """
        start = f"{component}."
        own = {key.removeprefix(start): value for key, value in self._fields.items() if key.startswith(start)}
        fields = own or {key: value for key, value in self._fields.items() if "." not in key}
        for key, value in fields.items():
            if key in ("use_rslora", "use_dora") and value not in (None, False, True):
                raise ValueError(f"{self.path}: {key} is {str(value)[:80]!r}: expected true or false")
            if key == "peft_type" and value not in (None, *_KINDS):
                raise ValueError(f"{self.path}: peft_type {value!r} is not supported: only {', '.join(_KINDS)}")
            if key == "init_lora_weights" and value not in _PLAIN_START:
                raise ValueError(
                    f"{self.path}: {key}={value!r} has changed the base model too: save it as a plain LoRA"
                )
            if key not in HONOURED | WITHOUT_EFFECT and value not in (None, False, "none", "", [], {}):
                raise ValueError(f"{self.path}: {key}={str(value)[:80]} is not supported")
        return fields

    def wants_magnitudes(self, component: str) -> bool:
        """Returns whether the component's adapter says that it is a DoRA."""
        return bool(self._of(component).get("use_dora"))

    def scale(self, component: str, names: Iterable[str], rank: int | None) -> float:
        """alpha / rank of a module that goes by these names, or alpha / sqrt(rank); 1 where nothing is noted.

        Raises:
          ValueError: if the noted rank is another, or a number is none.
        """
        fields, names = self._of(component), [*names]
        noted = self._number("r", self._pattern(fields, "rank_pattern", names, fields.get("r")))
        if noted is not None and rank is not None and noted != rank:
            raise ValueError(f"its rank is {rank}, the adapter's config says {noted:g}")
        alpha = self._number(
            "lora_alpha", self._pattern(fields, "alpha_pattern", names, fields.get("lora_alpha", fields.get("alpha")))
        )
        rank = rank or (None if noted is None else int(noted))
        if alpha is None or not rank:
            return 1.0
        return alpha / (math.sqrt(rank) if fields.get("use_rslora") else rank)

    def _pattern(self, fields: Mapping[str, Any], key: str, names: Iterable[str], default: Any) -> Any:
        """The value of the first pattern that one of the names ends with, as PEFT looks it up."""
        table = fields.get(key) or {}
        if not isinstance(table, dict):
            raise ValueError(f"{self.path}: {key} is {str(table)[:80]!r}: expected an object")
        for pattern, value in table.items():
            try:
                found = any(re.fullmatch(rf"(?:.*\.)?(?:{pattern})", name) for name in names)
            except re.error as error:
                raise ValueError(f"{self.path}: {key} has the pattern {pattern[:80]!r}: {error}") from None
            if found:
                return value
        return default

    def _number(self, key: str, value: Any) -> float | None:
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{self.path}: {key} is {str(value)[:80]!r}: expected a number")
        return float(value)


def _read(path: Path) -> dict[str, Any]:
    beside = path.parent / "adapter_config.json"
    if path.stem == "adapter_model" and beside.is_file():
        return _object(read_json(beside), f"{beside}")
    text = files.metadata(path).get("lora_adapter_metadata", "{}") if path.suffix == ".safetensors" else "{}"
    try:
        return _object(json.loads(text), f"{path}: its lora_adapter_metadata")
    except (json.JSONDecodeError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: its lora_adapter_metadata is not JSON: {error}") from None


def _object(fields: Any, name: str) -> dict[str, Any]:
    if not isinstance(fields, dict):
        raise ValueError(f"{name} is {str(fields)[:80]!r}: expected an object")
    return fields
