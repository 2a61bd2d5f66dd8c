"""A prior and the decoder that draws what it imagines (Kandinsky, Stable unCLIP): two programs, one after another."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxdiff.pipelines import inputs
from jaxdiff.pipelines.diffusion import DiffusionPipeline
from jaxdiff.pipelines.imagine import PriorOptions, PriorPipeline
from jaxdiff.pretrained.index import bare
from jaxdiff.pretrained.read import Bundle

_PART = 2**31 - 3
"""Folded into a picture's key: the prior's part of it."""
_GIVEN = ("embed", "no_embed")
"""Options of the decoder that the prior fills."""


def has_prior(bundle: Bundle) -> bool:
    """Returns whether a directory has a prior, by itself or beside a decoder."""
    return bool({"prior", "prior_prior"} & bundle.components.keys())


def split(bundle: Bundle) -> tuple[Bundle, Bundle]:
    """Returns the prior and the decoder of a directory that has both: `prior`, and what begins with `prior_`."""

    def take(named: Mapping[str, Any], of_prior: bool) -> dict[str, Any]:
        own = {name: x for name, x in named.items() if name.startswith("prior") == of_prior}
        return {bare(name): x for name, x in own.items()}

    made = [
        dataclasses.replace(
            bundle,
            components=take(bundle.components, of_prior),
            tokenizers=take(bundle.tokenizers, of_prior),
            schedulers=take(bundle.schedulers, of_prior),
        )
        for of_prior in (True, False)
    ]
    return made[0], made[1]


class Imagined:
    """A prior and its decoder; embeddings between them stay on their devices.

    Attributes:
      prior: imagines embeddings of prompts.
      decoder: draws them.
      Options: what a call may be given: the decoder's options, and those of `PriorOptions`.
    """

    def __init__(self, prior: PriorPipeline, decoder: DiffusionPipeline):
        """Takes both stages.

        Raises:
          ValueError: if the decoder draws no embedding, or one of another width.
        """
        if not decoder.model.embed:
            raise ValueError("stage 2 draws no embedding, which is what stage 1, a prior, makes: expected its decoder")
        if decoder.model.embed != prior.width:
            raise ValueError(
                f"the prior makes embeddings of {prior.width} numbers, and its decoder draws those of "
                f"{decoder.model.embed}: expected two parts of one model"
            )
        self.prior, self.decoder = prior, decoder
        fields = {f.name: (f.type, f.default) for f in dataclasses.fields(decoder.Options) if f.name not in _GIVEN}
        fields |= {f.name: (f.type, f.default) for f in dataclasses.fields(PriorOptions)}
        fields.setdefault("negative", (str | Sequence[str] | None, None))
        made = [(name, kind, dataclasses.field(default=default)) for name, (kind, default) in fields.items()]
        doc = f"{decoder.Options.__doc__}{(PriorOptions.__doc__ or '').partition('Attributes:')[2]}"
        self.Options = dataclasses.make_dataclass("Options", made, frozen=True, namespace={"__doc__": doc})

    def __call__(
        self, prompts: str | Sequence[str], *, key: Any, options: Any = None, latents: bool = False, **fields: Any
    ) -> Any:
        """Returns pictures uint8 [b h w 3], one for each prompt; see `DiffusionPipeline`.

        Raises:
          ValueError: for options that a stage does not take.
        """
        prompts, keys = inputs.prompts(prompts), inputs.check_key(key)
        given = {} if options is None else {f.name: getattr(options, f.name) for f in dataclasses.fields(options)}
        given |= fields
        own = {f.name: given.pop(f.name) for f in dataclasses.fields(PriorOptions) if f.name in given}
        chosen = PriorOptions(**own)
        chosen.check()
        prompts = prompts * (len(keys) if keys.ndim and len(prompts) == 1 else 1)
        if keys.ndim and len(keys) != len(prompts):
            raise ValueError(f"there are {len(keys)} keys for {len(prompts)} pictures: pass one, or one for each")
        if wrong := [name for name in _GIVEN if name in given]:
            raise ValueError(f"{wrong[0]} is what the prior makes: leave it out, or call the decoder")
        takes = {f.name for f in dataclasses.fields(self.decoder.Options)}
        negative = given.get("negative")
        if "negative" not in takes:
            given.pop("negative", None)
        if unknown := [name for name in given if name not in takes]:
            raise ValueError(f"this model takes no {unknown[0]}: expected {', '.join(sorted(takes | own.keys()))}")
        keys = keys if keys.ndim else jax.random.split(keys, len(prompts))
        away = None if negative is None else inputs.for_each(negative, len(prompts))
        own_keys = jax.vmap(lambda key: jax.random.fold_in(key, np.uint32(_PART)))(keys)
        embed, no_embed = self.prior(prompts, keys=own_keys, negative=away, options=chosen)
        return self.decoder(prompts, key=keys, embed=embed, no_embed=no_embed, latents=latents, **given)

    def compiled(self) -> int:
        """Counts the programs that have been compiled for both stages."""
        return self.prior.compiled() + self.decoder.compiled()
