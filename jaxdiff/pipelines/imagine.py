"""A prior by itself: CLIP's embeddings of pictures that texts describe, for a decoder (Kandinsky, Stable unCLIP).

Embeddings stay on the devices. What stands in place of an embedding, for the decoder's guidance, is one that the prior
imagines of the negative prompt; without one it is CLIP's of a picture of zeros where the model has an image encoder,
and else zeros.

A walk may start from an embedding that is given, with noise (Kandinsky's `emb2emb`): alpha z + sigma eps at its first
time. As its authors have it, z is CLIP's own, while the prior was trained on z less its mean, over its deviation.

Source: Ramesh et al. 2022, arXiv 2204.06125, section 2.2: two embeddings are drawn, and the one is kept that has the
larger dot product with the text's.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxdiff import __version__
from jaxdiff.data import prompt as prompt_text
from jaxdiff.diffusion import denoiser
from jaxdiff.models import causal_prior
from jaxdiff.models.causal_prior import CausalPriorConfig
from jaxdiff.models.image_clip import ClipImage
from jaxdiff.models.prior import Prior, denormalised
from jaxdiff.models.text_clip import ClipText
from jaxdiff.parallel import MeshSpec, param_shardings
from jaxdiff.parallel.spread import Spread
from jaxdiff.pipelines import inputs
from jaxdiff.pipelines.prior_options import CausalOptions, PriorOptions
from jaxdiff.pipelines.program import FIRST, unit_noise
from jaxdiff.pipelines.vary import MixOptions, make_look
from jaxdiff.pretrained.read import Bundle
from jaxdiff.pretrained.scheduler import Process
from jaxdiff.sampling.kernel import drive
from jaxdiff.sampling.table import table_kernel
from jaxdiff.typing import Cond, Key, Network, Params

PARTS = ("prior", "text_encoder")
_BLEND = 2**31 - 6
"""Folded into a picture's key: the part of it that the first text of a blend draws from; those after it go down."""


def check_parts(bundle: Bundle, needed: Sequence[str]) -> None:
    """Refuses a directory that lacks one of these parts, or a tokenizer."""
    has = {*bundle.components, *bundle.tokenizers}
    if missing := [name for name in (*needed, "tokenizer") if name not in has]:
        raise ValueError(
            f"{bundle.kind} has no {', '.join(missing)}: its directory needs {', '.join(needed)}, tokenizer"
        )


def check_widths(bundle: Bundle, widths: Mapping[str, int]) -> None:
    """Refuses parts whose embeddings have other widths than each other's."""
    if len(set(widths.values())) > 1:
        listed = ", ".join(f"{name} {width}" for name, width in widths.items())
        raise ValueError(f"{bundle.kind}: embeddings are of different widths: {listed}; expected one model's parts")


class PriorPipeline:
    """A prior of a directory, ready to imagine; another prompt, seed or guidance compiles nothing.

    Attributes:
      width: width of the embeddings.
      clip: hash of the CLIP that made them in training; an empty text where nobody says it.
      Options: the class of its options.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        spec: MeshSpec | Literal["pmap"] = MeshSpec(),
        devices: Sequence[jax.Device] | None = None,
        programs: Path | None = None,
    ):
        """Takes a prior's parts and compiles nothing yet; see `DiffusionPipeline`.

        Raises:
          ValueError: if parts are missing, or their widths do not fit each other.
        """
        parts = bundle.components
        check_parts(bundle, PARTS)
        names = [name for name in (*PARTS, "image_encoder") if name in parts]
        self.nets = {name: parts[name].config for name in names}
        widths = {name: getattr(net, "embed", None) or net.projection for name, net in self.nets.items()}
        check_widths(bundle, widths)
        self.width = widths["prior"]
        coded = isinstance(self.nets["prior"], CausalPriorConfig)
        self.Options: Any = CausalOptions if coded else PriorOptions
        self.process: Any = None if coded else bundle.process()
        self.clip: str = bundle.index.get("clip", "") if bundle.kind == "jaxdiff" else ""
        self.tokenizer = bundle.tokenizers["tokenizer"]
        self.params: dict[str, Any] = {name: parts[name].params for name in names}
        identity = repr(
            (__version__, self.nets, [parts[name].json for name in names], bundle.schedulers, bundle.native)
        )
        self._run = Spread(make_program(self.nets, self.process), spec, devices, programs=programs, identity=identity)
        self._look = Spread(make_look(self.nets), spec, devices)
        self._away = Spread(lambda params, like: nothing(self.nets, params, like), spec, devices)
        self._blend = Spread(lambda _, batch: jnp.einsum("bne,bn->be", *batch), spec, devices)
        if spec != "pmap":
            self.params = jax.device_put(self.params, param_shardings(self.params, self._run.mesh))

    def __call__(
        self,
        prompts: Sequence[str],
        *,
        keys: Any,
        negative: Sequence[str] | None = None,
        options: Any = None,
        start: Float[Array, "b e"] | None = None,
        strength: float | None = None,
    ) -> tuple[Array, Array]:
        """Returns embeddings [b e], and what stands in their place for guidance [b e], both on the devices.

        Args:
          prompts: one for each picture.
          keys: [b].
          negative: what to keep away from, one for each; None: nothing.
          options: an instance of `Options`; None: all defaults.
          start: embeddings to start from, with a strength; None: noise.
          strength: which part of the steps is walked from there.

        Raises:
          ValueError: for options that make no sense; nothing has been compiled then.
          FloatingPointError: if embeddings are not finite.
        """
        options = self.Options() if options is None else options
        options.check()
        inputs.warn_of_cut(prompts, self.cut)
        # of each picture a key for each embedding
        own = jnp.stack([folded(keys, 2 + n) if n else keys for n in range(options.prior_draws)], 1)
        batch: dict[str, Any] = {"keys": own, "text": self.tokens(prompts)}
        if negative is None:
            batch["no_text"] = self.tokens([""] * len(prompts))
        else:
            batch["negative"] = self.tokens(negative)
        if start is not None:
            batch["start"] = start
        out = self._run((self.params, options.numbers(self.process, strength)), batch, host=False)
        if not np.asarray(out["finite"]).all():
            raise FloatingPointError("embeddings are not finite: the weights are damaged, or dtype is too narrow")
        return out["embed"], out["away"]

    def look(self, prompts: Sequence[str], options: MixOptions) -> tuple[Array, Array]:
        """Returns embeddings [b e] of pictures as they are, and as `options` move them, on the devices.

        Raises:
          ValueError: if there is no image encoder, or for options that make no sense.
        """
        options.check()
        if "image_encoder" not in self.nets:
            raise ValueError("picture is for models with CLIP's image encoder, and this one's directory has none")
        batch: dict[str, Any] = options.batch(len(prompts), lambda text: self.tokens([text])[0])
        if options.described is not None:
            batch["text"] = self.tokens(prompts)
        out = self._look(self.params, batch, host=False)
        return out["seen"], out["embed"]

    def blend(self, parts: Sequence[tuple[Any, float]], *, keys: Any, options: Any = None) -> Float[Array, "b e"]:
        """Returns the weighted sum of embeddings, on the devices: CLIP's of pictures, the prior's of texts.

        Args:
          parts: pictures uint8 [b h w 3] or texts, each with its weight.
          keys: [b].
          options: of the prior.

        Raises:
          ValueError: for pictures of another number than the keys.
        """
        embeds = []
        for n, (part, _) in enumerate(parts):
            if isinstance(part, str):
                embeds.append(self([part] * len(keys), keys=folded(keys, _BLEND - n), options=options)[0])
            else:
                embeds.append(self.look([""] * len(keys), MixOptions(picture=part))[0])
        weights = np.tile(np.array([weight for _, weight in parts], np.float32), (len(keys), 1))
        return self._blend(None, (jnp.stack(embeds, 1), weights), host=False)

    def away(self, like: Float[Array, "b e"]) -> Float[Array, "b e"]:
        """Returns what stands for no picture, for as many as `like`, on the devices."""
        return self._away(self.params, like, host=False)

    def compiled(self) -> int:
        """Counts the programs that have been compiled for this prior."""
        return sum(program.compiled() for program in (self._run, self._look, self._away, self._blend))

    def cut(self, prompt: str) -> str:
        """Returns the end of a prompt that is too long for the model and is not seen by it; '' if all is."""
        return prompt_text.cut(self.tokenizer, prompt, 1, self.nets["text_encoder"].length)

    def tokens(self, prompts: Sequence[str]) -> Any:
        """Returns token ids [b l]."""
        length = self.nets["text_encoder"].length
        return np.stack([prompt_text.encode(self.tokenizer, text, 1, length)[0] for text in prompts])[:, 0]


def make_program(nets: Mapping[str, Any], process: Process | None) -> Callable[[Any, Any], dict[str, Array]]:
    """Returns the function ((params, numbers of the options), batch) -> {embed, away, finite}; no process: codes.

    `batch` has `keys` [b n], one for each embedding that is drawn of a text; ids [b l] of `text` and either of an empty
    `no_text`, or of what is `negative`, of which embeddings are imagined too; and what to `start` from [b e], if not
    from noise.
    """

    def program(arguments: tuple[Params, Any], batch: Any) -> dict[str, Array]:
        params, numbers = arguments
        both = "negative" in batch
        ids = (batch["text"], batch["negative" if both else "no_text"])
        text, away = (read(nets["text_encoder"], params["text_encoder"], tokens) for tokens in ids)
        double = lambda a, b: jax.tree.map(lambda x, y: jnp.concatenate([x, y]), a, b)
        keys, start = batch["keys"], batch.get("start")
        if both:
            text, away = double(text, away), double(away, away)
            start = None if start is None else double(start, start)

        def draw(own: Any) -> Array:
            own = jnp.concatenate([own, folded(own, 1)]) if both else own
            if process is None:
                return causal_prior.sample(nets["prior"], params["prior"], text, away, own, numbers)
            denoise = denoiser.make(
                network(nets["prior"]), params["prior"], text, away, process.schedule, process.kind, process.says
            )
            x = numbers.noise * unit_noise(own, FIRST, (nets["prior"].embed,))
            x = x if start is None else x + numbers.signal * start
            return denormalised(params["prior"], _array(drive(_kernel(denoise, numbers.table), numbers.table, x, own)))

        draws = [draw(keys[:, n]) for n in range(keys.shape[1])]
        assert text.pooled is not None
        embed = nearest(jnp.stack(draws), text.pooled)
        out = {"embed": embed, "finite": jnp.isfinite(embed).all(1)}
        if both:
            return {name: jnp.split(x, 2)[0] for name, x in out.items()} | {"away": jnp.split(embed, 2)[1]}
        return out | {"away": nothing(nets, params, embed)}

    return program


def nearest(embeds: Float[Array, "n b e"], text: Float[Array, "b e"]) -> Float[Array, "b e"]:
    """Returns of n embeddings of each picture the one with the largest dot product with its text's."""
    best = jnp.argmax(jnp.einsum("nbe,be->nb", embeds, text), 0)
    return jnp.take_along_axis(embeds, best[None, :, None], 0)[0]


def nothing(nets: Mapping[str, Any], params: Params, like: Array) -> Array:
    """Returns what stands for no picture."""
    if "image_encoder" not in nets:
        return jnp.zeros_like(like)
    net = nets["image_encoder"]
    out: Any = ClipImage(net).apply({"params": params["image_encoder"]}, jnp.zeros((1, net.size, net.size, 3)))
    return jnp.broadcast_to(out[1].astype(jnp.float32), like.shape)


def _kernel(denoise: Any, table: Any) -> Any:
    return table_kernel(denoise, table.b.shape[1])


def _array(x: Any) -> Array:
    assert isinstance(x, jax.Array)
    return x


def folded(keys: Any, n: int) -> Any:
    """Returns another part of keys [b]."""
    return jax.vmap(lambda key: jax.random.fold_in(key, n))(keys)


def read(net: Any, params: Params, tokens: Array) -> Cond:
    """Returns a text as the prior reads it: its states, which of them count, and its vector."""
    out: Any = ClipText(net).apply({"params": params}, tokens)
    states, vector = (x.astype(jnp.float32) for x in out)
    end = jnp.argmax(tokens if net.end is None else tokens == net.end, -1)
    return Cond(context=states, context_mask=jnp.arange(tokens.shape[1])[None] <= end[:, None], pooled=vector)


def first(net: Any, key: Key) -> Params:
    """Returns the first parameters of a prior."""
    states = (jnp.zeros((1, net.length, net.text)), jnp.ones((1, net.length), bool)) if net.states else ()
    return Prior(net).init(key, jnp.zeros((1, net.embed)), jnp.zeros(1), jnp.zeros((1, net.vector)), *states)["params"]


def network(net: Any) -> Network:
    """Returns the prior as what `denoiser.make` takes."""

    def call(params: Params, x: Array, t: Array, cond: Cond) -> Any:
        return Prior(net).apply({"params": params}, x, t, cond.pooled, cond.context, cond.context_mask)

    return call
