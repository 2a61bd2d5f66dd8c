"""A prior and the decoder that draws what it imagines (Kandinsky, Stable unCLIP): two programs, one after another."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxdiff.pipelines import canvas, inputs
from jaxdiff.pipelines.diffusion import DiffusionPipeline
from jaxdiff.pipelines.imagine import PriorPipeline
from jaxdiff.pipelines.vary import SeenOptions, VaryOptions
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

    halves = [
        dataclasses.replace(
            bundle,
            components=take(bundle.components, of_prior),
            tokenizers=take(bundle.tokenizers, of_prior),
            schedulers=take(bundle.schedulers, of_prior),
        )
        for of_prior in (True, False)
    ]
    return halves[0], halves[1]


class Imagined:
    """A prior and its decoder; embeddings between them stay on their devices.

    Attributes:
      prior: imagines embeddings of prompts.
      decoder: draws them.
      runs: where both were read, where that is known.
      Options: what a call may be given: the decoder's options, those of the prior, and of `SeenOptions` where
        the prior has CLIP's image encoder.
    """

    def __init__(self, prior: PriorPipeline, decoder: DiffusionPipeline):
        """Takes both stages.

        Raises:
          ValueError: if the decoder draws no embedding, or one of another width.
        """
        if not decoder.model.embed:
            raise ValueError("stage 2 draws no embedding, which is what stage 1, a prior, makes: expected its decoder")
        if prior.clip and decoder.clip and prior.clip != decoder.clip:
            raise ValueError(
                f"the prior imagines embeddings of another CLIP ({prior.clip[:12]}) than its decoder draws "
                f"({decoder.clip[:12]}): expected two runs on one CLIP"
            )
        if decoder.model.embed != prior.width:
            raise ValueError(
                f"the prior makes embeddings of {prior.width} numbers, and its decoder draws those of "
                f"{decoder.model.embed}: expected two parts of one model"
            )
        self.prior, self.decoder, self.runs = prior, decoder, tuple[str, ...]()
        fields = {f.name: (f.type, f.default) for f in dataclasses.fields(decoder.Options) if f.name not in _GIVEN}
        self._more = (prior.Options, SeenOptions) if "image_encoder" in prior.nets else (prior.Options,)
        fields |= {f.name: (f.type, f.default) for kind in self._more for f in dataclasses.fields(kind)}
        fields.setdefault("negative", (str | Sequence[str] | None, None))
        listed_fields = [(name, kind, dataclasses.field(default=default)) for name, (kind, default) in fields.items()]
        shown = [kind for one in self._more for kind in reversed(one.__mro__[:-1])]
        listed = [(kind.__doc__ or "").partition("Attributes:\n")[2].rstrip() for kind in shown]
        doc = "\n".join([(decoder.Options.__doc__ or "").rstrip(), *listed, ""])
        self.Options = dataclasses.make_dataclass("Options", listed_fields, frozen=True, namespace={"__doc__": doc})

    @property
    def model(self) -> Any:
        """Returns the static part of the decoder."""
        return self.decoder.model

    @property
    def size(self) -> tuple[int, int]:
        """Returns height and width of pictures for which no size is asked."""
        return self.decoder.size

    def settings(self, options: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Returns the options of the prior and of the decoder in a call with these; see `DiffusionPipeline`."""
        of_prior = {f.name: f.default for kind in self._more for f in dataclasses.fields(kind)}
        own = {name: options.get(name, default) for name, default in of_prior.items()}
        of_this = {name: value for name, value in own.items() if isinstance(value, int | float | str)}
        return [of_this, *self.decoder.settings({n: x for n, x in options.items() if n not in of_prior})]

    def __call__(
        self,
        prompts: str | Sequence[str],
        *,
        key: Any,
        options: Any = None,
        latents: bool = False,
        on_device: bool = False,
        until: float | None = None,
        **fields: Any,
    ) -> Any:
        """Returns pictures uint8 [b h w 3], one for each prompt; see `DiffusionPipeline`.

        Raises:
          ValueError: for options that a stage does not take.
        """
        prompts, keys = inputs.prompts(prompts), inputs.check_key(key)
        call = {} if options is None else {f.name: getattr(options, f.name) for f in dataclasses.fields(options)}
        call |= fields
        taken = {kind: {f.name for f in dataclasses.fields(kind)} & call.keys() for kind in self._more}
        own = {kind: kind(**{name: call.pop(name) for name in names}) for kind, names in taken.items()}
        chosen, vary = own[self.prior.Options], own.get(SeenOptions, SeenOptions())
        assert isinstance(vary, SeenOptions)
        chosen.check()
        vary.check()
        pictures = [part for part, _ in vary.blend if not isinstance(part, str)]
        several = [
            x for x in (keys if keys.ndim else None, vary.picture, call.get("image"), *pictures) if x is not None
        ]
        if len(prompts) == 1:
            prompts *= max((len(x) for x in several), default=1)
        if keys.ndim and len(keys) != len(prompts):
            raise ValueError(f"there are {len(keys)} keys for {len(prompts)} pictures: pass one, or one for each")
        if wrong := [name for name in _GIVEN if name in call]:
            raise ValueError(f"{wrong[0]} is what the prior makes: leave it out, or call the decoder")
        takes = {f.name for f in dataclasses.fields(self.decoder.Options)}
        negative = call.get("negative")
        if "negative" not in takes:
            call.pop("negative", None)
        if unknown := [name for name in call if name not in takes]:
            raise ValueError(f"this model takes no {unknown[0]}: expected {', '.join(sorted(takes))}")
        keys = keys if keys.ndim else jax.random.split(keys, len(prompts))
        # a decoder that adds noise to its embedding gets zeros in its place
        away = None if negative is None or self.decoder.model.noises else inputs.for_each(negative, len(prompts))
        own_keys = jax.vmap(lambda key: jax.random.fold_in(key, np.uint32(_PART)))(keys)
        imagine = functools.partial(self.prior, keys=own_keys, options=chosen)
        if vary.picture is None and not len(vary.blend):
            embed, no_embed = imagine(prompts, negative=away)
        else:
            if len(vary.blend):
                embed = self.prior.blend(vary.blend, keys=own_keys, options=chosen)
            else:
                seen, embed = self.prior.look(prompts, vary)
                if vary.keep:
                    call |= self._noise_of(prompts, keys, seen, vary, call)
            if vary.prior_strength is not None:
                embed, no_embed = imagine(prompts, negative=away, start=embed, strength=vary.prior_strength)
            else:
                no_embed = self.prior.away(embed) if away is None else imagine(away)[0]
        drawn: dict[str, Any] = {"embed": embed, **({} if self.decoder.model.noises else {"no_embed": no_embed})}
        how: dict[str, Any] = {"latents": latents, "on_device": on_device, "until": until}
        return self.decoder(prompts, key=keys, **drawn, **how, **call)

    def _noise_of(self, prompts: list[str], keys: Any, seen: Any, vary: VaryOptions, given: Mapping[str, Any]) -> Any:
        """Returns the options of a walk that begins at the noise that a picture comes from, by DDIM both ways."""
        if wrong := [name for name in ("image", "init_noise", "sampler") if given.get(name) is not None]:
            raise ValueError(f"{wrong[0]} does not go with keep, which starts from the picture's own noise, by ddim")
        same = {name: given[name] for name in ("steps", "height", "width") if name in given}
        image = canvas.check_pictures(vary.picture, len(prompts), "picture")
        back = {**same, "sampler": "ddim_inverse", "image": image, "embed": seen, "guidance": None}
        own = jax.vmap(lambda key: jax.random.fold_in(key, np.uint32(_PART - 1)))(keys)
        noise = self.decoder(prompts, key=own, latents=True, **back)[1]
        return {"init_noise": np.asarray(noise, np.float32), "sampler": "ddim"}

    def compiled(self) -> int:
        """Counts the programs that have been compiled for both stages."""
        return self.prior.compiled() + self.decoder.compiled()
