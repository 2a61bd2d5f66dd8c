"""A new word for a model of others: a few vectors in the tables of its text encoders are learned, and nothing else.

With `keep_norms` a vector keeps its first length and only turns: v = |v_0| p / |p| for the trained p.

Source: Gal et al. 2022, arXiv 2208.01618, section 4.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxdiff.data.source import DataConfig, Example, Source
from jaxdiff.pretrained import textual_inversion
from jaxdiff.pretrained.single_process import signature
from jaxdiff.tasks.base_model import Base
from jaxdiff.tasks.published import Assets, PublishedConfig
from jaxdiff.training import OptimizerConfig, Variables
from jaxdiff.typing import Key, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(PublishedConfig):
    """Textual inversion.

    Attributes:
      word: that prompts will say, one that the tokenizer does not know.
      init: words whose vectors it starts from, in turns where they are fewer than `vectors`.
      vectors: vectors of the word, in each text encoder.
      keep_norms: whether they keep their first lengths.
      templates: captions of the pictures, {} being the word, one drawn for each; (): their captions, which have the
        word.
    """

    word: str = "<new>"
    init: str = ""
    vectors: int = 1
    keep_norms: bool = True
    templates: tuple[str, ...] = (
        *("a photo of {}", "a rendering of {}", "a cropped photo of {}", "a close-up photo of {}"),
        *("a bright photo of {}", "a dark photo of {}", "a good photo of {}", "a photo of one {}"),
    )

    def check(self, data: DataConfig, optimizer: OptimizerConfig) -> None:
        """Refuses numbers that do not fit each other, and a word that the model knows."""
        if self.vectors < 1:
            raise ValueError(f"task.vectors is {self.vectors}: expected 1 or more")
        if wrong := [text for text in self.templates if "{}" not in text]:
            raise ValueError(f"task.templates has {wrong[0]!r}, without {{}} for the word")
        super().check(data, optimizer)
        self._ids(self._outline())

    def _outline(self) -> Base:
        """Returns the base whose tokenizers know the word."""
        base = super()._outline()
        texts = {name: base.model.nets[name].width for name in base.model.texts}
        rows = {name: np.zeros((self.vectors, width), np.float32) for name, width in texts.items()}
        try:
            bundle = textual_inversion.with_word(base.bundle, self.word, rows)
        except textual_inversion.KnownWordError as error:
            raise ValueError(f"task.word: {error}") from None
        nets = {**base.model.nets, **{name: bundle.components[name].config for name in texts}}
        return base._replace(bundle=bundle, model=dataclasses.replace(base.model, nets=nets))

    def _tokens(self, base: Base, encoder: str) -> Any:
        return base.bundle.tokenizers[encoder.replace("text_encoder", "tokenizer")]

    def _ids(self, base: Base) -> dict[str, list[int]]:
        """Returns the tokens that each encoder's vectors start from."""
        found = {name: self._tokens(base, name).tokens(self.init) for name in base.model.texts}
        if not all(found.values()):
            raise ValueError(f"task.init is {self.init!r}: give words that are near to what {self.word!r} will mean")
        return {name: [ids[i % len(ids)] for i in range(self.vectors)] for name, ids in found.items()}

    def _prepare(self, assets: Assets, folder: Path, data: DataConfig, source: Source | None, new: bool) -> Assets:
        captions = source.captions() if source is not None and not self.templates else []
        if lacking := [text for text in captions if self.word.lower() not in text.lower()]:
            raise ValueError(
                f"{len(lacking)} of {len(captions)} captions lack the word {self.word!r}, such as {lacking[0][:80]!r}: "
                "put it in, or give task.templates"
            )
        return assets

    def _row(self, assets: Assets, one: Example, rng: np.random.Generator) -> dict[str, np.ndarray]:
        if self.templates:
            caption = self.templates[int(rng.integers(len(self.templates)))].replace("{}", self.word)
            one = Example(**{**one, "caption": caption})
        return super()._row(assets, one, rng)

    def _start(self, assets: Assets, key: Key, loaded: Params) -> tuple[Params, Params]:
        ids = self._ids(assets.base)
        rows = {name: loaded[name]["token_embed"]["embedding"][np.array(own)] for name, own in ids.items()}
        norms = {name: jnp.linalg.norm(x.astype(jnp.float32), axis=-1, keepdims=True) for name, x in rows.items()}
        return {"vectors": rows}, {**loaded, "norms": norms}

    def learned(self, params: Params, frozen: Params) -> dict[str, Any]:
        """Returns the word's vectors [n, width] by text encoder."""
        if not self.keep_norms:
            return dict(params["vectors"])
        unit = lambda x: x / jnp.linalg.norm(x, axis=-1, keepdims=True)
        return {name: frozen["norms"][name].astype(x.dtype) * unit(x) for name, x in params["vectors"].items()}

    def _weights(self, assets: Assets, params: Params, frozen: Params) -> dict[str, Any]:
        parts = {name: tree for name, tree in frozen.items() if name != "norms"}
        for name, rows in self.learned(params, frozen).items():
            start = self._tokens(assets.base, name).added[self.word][0]
            parts[name] = textual_inversion.with_rows(parts[name], start, rows)
        return parts

    def apart(self, assets: Assets, weights: Variables, out: Path, layout: str) -> Callable[[Path], None]:
        """Returns what writes the word's vectors as one file, as diffusers and SDXL's tools have it."""
        if out.suffix != ".safetensors":
            raise ValueError(f"out is {out}: this run is a word, for a file that ends in .safetensors")
        found = self.learned(weights.params, weights.frozen)
        alone = found["text_encoder"] if [*found] == ["text_encoder"] else found
        note = {**signature(), "modelspec.trigger_phrase": self.word, "ss_new_sd_model_hash": assets.base.sha256}
        return lambda to: textual_inversion.write(to, self.word, alone, note)
