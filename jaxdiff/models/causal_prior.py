"""unCLIP's autoregressive prior: a transformer that says CLIP's embedding of a picture as whole numbers, one by one.

Embeddings z [e] lose their mean and are turned into their principal components, the largest first, of which n stay;
each is one of k equal parts of its range over the data:

    z ~ mean + basis' y,    code_i = floor(k (y_i - low_i) / (high_i - low_i)),    y_i ~ the middle of part code_i

The sequence is the text's states, the text's vector, a token of the dot product of both embeddings, and the codes. That
token is one of k equal shares of the data, so that its upper half are the pictures nearer to their texts than most.
A state sees those before it; that of the dot product says the first code. Padding is a learned token at each place.

Source: Ramesh et al. 2022, arXiv 2204.06125, section 2.2 (the autoregressive prior).
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int

from jaxdiff.models.text_image_transformer import Block
from jaxdiff.nn.cached import Kept
from jaxdiff.sampling import tokens as draws
from jaxdiff.typing import Cond, Key, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class CausalPriorConfig:
    """The numbers of an autoregressive prior; the defaults are the paper's, as far as it says them.

    Attributes:
      embed: width of CLIP's embeddings, of pictures and of texts.
      text: width of the text's states.
      length: tokens of a text.
      kept: principal components that are said.
      bins: parts of each component's range, and shares of the dot products.
      width: width of a token; it divides into the heads.
      layers: blocks.
      heads: heads of each attention.
      dtype: dtype of the computation; outputs are float32.
    """

    embed: int = 1024
    text: int = 1024
    length: int = 77
    kept: int = 319
    bins: int = 1024
    width: int = 2048
    layers: int = 24
    heads: int = 32
    dtype: str = "float32"


def shapes(net: CausalPriorConfig) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the parameters that `encode` and `decode` read."""
    numbers = {"mean": (net.embed,), "basis": (net.kept, net.embed), "low": (net.kept,), "high": (net.kept,)}
    return {**numbers, "edges": (net.bins - 1,)}


def fit(
    pictures: Float[np.ndarray, "m e"], texts: Float[np.ndarray, "m e"], net: CausalPriorConfig
) -> dict[str, Float32[np.ndarray, "..."]]:
    """Returns the parameters that `encode` and `decode` read, measured over the embeddings of m pictures and texts.

    Raises:
      ValueError: if there are fewer embeddings than components that are kept.
    """
    x, mean = np.asarray(pictures, np.float64), np.mean(pictures, 0, np.float64)
    if len(x) < net.kept or x.shape[1] < net.kept:
        raise ValueError(f"{len(x)} embeddings of {x.shape[1]} numbers have no {net.kept} components: expected more")
    _, _, basis = np.linalg.svd(x - mean, full_matrices=False)  # by decreasing deviation
    y = (x - mean) @ basis[: net.kept].T
    dots = (x * np.asarray(texts, np.float64)).sum(1)
    edges = np.quantile(dots, np.arange(1, net.bins) / net.bins)
    measured = {"mean": mean, "basis": basis[: net.kept], "low": y.min(0), "high": y.max(0), "edges": edges}
    return {name: value.astype(np.float32) for name, value in measured.items()}


def encode(params: Params, embed: Float[Array, "b e"], bins: int) -> Int[Array, "b n"]:
    """Returns the codes of embeddings."""
    y = (embed - params["mean"][None]) @ params["basis"].T
    share = (y - params["low"][None]) / (params["high"] - params["low"])[None]
    return jnp.clip(jnp.floor(share * bins), 0, bins - 1).astype(jnp.int32)


def decode(params: Params, codes: Int[Array, "b n"], bins: int) -> Float[Array, "b e"]:
    """Returns the embeddings of codes."""
    y = params["low"][None] + (codes + 0.5) / bins * (params["high"] - params["low"])[None]
    return params["mean"][None] + y @ params["basis"]


def nearness(params: Params, embed: Float[Array, "b e"], vector: Float[Array, "b e"]) -> Int[Array, " b"]:
    """Returns which share of the data the dot products of pictures and texts lie in."""
    return jnp.searchsorted(params["edges"], (embed * vector).sum(1), side="right").astype(jnp.int32)


class CausalPrior(nn.Module):
    """The network of a `CausalPriorConfig`: (text, share of the dot product [b], codes [b n]) -> logits [b n k]."""

    config: CausalPriorConfig

    def setup(self) -> None:
        net, small = self.config, nn.initializers.normal(0.02)
        dense = lambda features: nn.Dense(features, dtype=net.dtype)
        embed = lambda count: nn.Embed(count, net.width, dtype=net.dtype, embedding_init=small)
        self.states, self.vector, self.shares, self.values = (
            dense(net.width),
            dense(net.width),
            *map(embed, (net.bins,) * 2),
        )
        self.padding, self.places = embed(net.length), embed(net.length + net.kept + 1)
        self.blocks = [Block(net) for _ in range(net.layers)]
        self.norm = nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, dtype=net.dtype)
        self.says = dense(net.bins)
        for name, shape in shapes(net).items():
            self.param(name, nn.initializers.zeros, shape)

    def __call__(self, text: Cond, share: Int[Array, " b"], codes: Int[Array, "b n"]) -> Float[Array, "b n k"]:
        """Returns logits of each code, given those before it."""
        y = jnp.concatenate([self._told(text, share), self.values(codes[:, :-1])], 1)
        return self._through(y)[0][:, self.config.length + 1 :]

    def start(self, text: Cond, share: Int[Array, " b"]) -> tuple[Float[Array, "b k"], list[Kept]]:
        """Returns logits of the first code, and what is kept, with room for all codes."""
        logits, kept = self._through(self._told(text, share))
        room = lambda x: jnp.pad(x, ((0, 0), (0, self.config.kept - 1), (0, 0), (0, 0)))
        return logits[:, -1], jax.tree.map(room, kept)

    def step(
        self, code: Int[Array, " b"], kept: list[Kept], at: Int[Array, ""]
    ) -> tuple[Float[Array, "b k"], list[Kept]]:
        """Returns logits of code `at` + 1, by code `at`, and what is kept with it."""
        place, after = self.config.length + 2 + at, []
        y = self.values(code[:, None]) + self.places(place[None])[None]
        for block, old in zip(self.blocks, kept, strict=True):
            y, new = block.look_on(y, old, place, jnp.arange(old[0].shape[1]) <= place)
            after.append(new)
        return self.says(self.norm(y)[:, 0]).astype(jnp.float32), after

    def _told(self, text: Cond, share: Array) -> Array:
        mask: Any = text.context_mask
        states = jnp.where(mask[..., None], self.states(text.context), self.padding(jnp.arange(mask.shape[1]))[None])
        return jnp.concatenate([states, self.vector(text.pooled)[:, None], self.shares(share)[:, None]], 1)

    def _through(self, y: Array) -> tuple[Array, list[Kept]]:
        kept, n = [], y.shape[1]
        y, seen = y + self.places(jnp.arange(n))[None], jnp.tril(jnp.ones((n, n), bool))
        for block in self.blocks:
            y, own = block.look(y, seen)
            kept.append(own)
        return self.says(self.norm(y)).astype(jnp.float32), kept


def sample(
    net: CausalPriorConfig, params: Params, text: Cond, away: Cond | None, keys: Key, numbers: draws.Numbers
) -> Float[Array, "b e"]:
    """Draws embeddings in one scan that keeps keys and values, conditioned on being nearer to their texts than most.

    Args:
      net: its numbers.
      params: its parameters.
      text: states, which of them count, and vectors of the texts.
      away: those of what is said in the place of the texts, for guidance; None: no guidance.
      keys: one for each picture.
      numbers: how codes are drawn.
    """
    apply: Any = lambda method, *args: CausalPrior(net).apply({"params": params}, *args, method=method)
    both = text if away is None else jax.tree.map(lambda a, b: jnp.concatenate([a, b]), text, away)
    ways = 1 if away is None else 2
    folded = lambda n: jax.vmap(lambda key: jax.random.fold_in(key, n))(keys)
    share = jax.vmap(lambda key: jax.random.randint(key, (), net.bins // 2, net.bins))(folded(net.kept))

    def pick(logits: Array, at: Any) -> Array:
        logits = logits if away is None else draws.guided(logits, numbers.guidance)
        return draws.draw(folded(at), logits, numbers)

    def step(state: tuple[Array, Any], at: Array) -> tuple[Any, Array]:
        logits, kept = state
        code = pick(logits, at)
        return apply("step", jnp.tile(code, ways), kept, at), code

    start = apply("start", both, jnp.tile(share, ways))
    (logits, _), first = jax.lax.scan(step, start, jnp.arange(net.kept - 1))
    return decode(params, jnp.concatenate([first, pick(logits, net.kept - 1)[None]]).T, net.bins)
