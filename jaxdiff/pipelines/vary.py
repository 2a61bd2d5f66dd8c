"""Embeddings of pictures that are given: as they are, between two of them, or moved by a change of words.

With CLIP's embedding z of a picture, z' of another and text vectors t (wanted) and s (what the picture shows):

    variation      z
    interpolation  slerp(z, z', mix), or (1 - mix) z + mix z' as Kandinsky's pipelines have it
    text diff      slerp(z, |z| (t - s) / |t - s|, mix)
    blend          sum of w_n z_n, of pictures' embeddings and of those that a prior imagines of texts (Kandinsky)

Source: Ramesh et al. 2022, arXiv 2204.06125, section 3.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxdiff.models.image_clip import ClipImage, prepare
from jaxdiff.models.text_clip import ClipText
from jaxdiff.pipelines import canvas
from jaxdiff.typing import Params


@dataclasses.dataclass(frozen=True)
class MixOptions:
    """The options of a call that starts from a picture's embedding, and not from a prior.

    Attributes:
      picture: uint8 [b h w 3] whose embedding is drawn again.
      towards: uint8 [b h w 3], to whose embedding `mix` leads.
      described: what the picture shows, in words; `mix` leads from there to the prompt.
      mix: how far, from 0 to 1.
      straight: lead along the straight line to the embedding of `towards`, as Kandinsky does, not on the sphere.
    """

    picture: Any = None
    towards: Any = None
    described: str | None = None
    mix: float = 0.5
    straight: bool = False

    def check(self) -> None:
        """Refuses what makes no sense.

        Raises:
          ValueError: names the option.
        """
        if isinstance(self.mix, bool) or not isinstance(self.mix, int | float) or not 0 <= self.mix <= 1:
            raise ValueError(f"mix is {self.mix!r}: expected a number from 0 to 1")
        named = [name for name in ("towards", "described") if getattr(self, name) is not None]
        if len(named) > 1:
            raise ValueError("towards and described were both given: the picture moves to one of them")
        if self.picture is None and named:
            raise ValueError(f"{named[0]} is about a picture: pass picture")
        if self.straight and self.towards is None:
            raise ValueError("straight is about the way between two pictures: pass towards")

    def batch(self, count: int, tokens: Callable[[str], np.ndarray]) -> dict[str, np.ndarray]:
        """Returns what `make_look` takes of `count` prompts, but their ids.

        Args:
          count: how many; a single picture serves all.
          tokens: a text -> its ids [l].

        Raises:
          ValueError: if what is given are no pictures, or they are of another number.
        """
        pictures = {"picture": self.picture, "towards": self.towards}
        rows = {name: canvas.check_pictures(x, count, name) for name, x in pictures.items() if x is not None}
        rows |= {"mix": np.full(count, self.mix, np.float32), "straight": np.full(count, self.straight)}
        return rows if self.described is None else rows | {"described": np.stack([tokens(self.described)] * count)}


@dataclasses.dataclass(frozen=True)
class VaryOptions(MixOptions):
    """The options of a picture whose decoder has a way back to noise.

    Attributes:
      keep: start from the noise that the picture comes from (DDIM inversion), so that its composition stays.
    """

    keep: bool = False

    def check(self) -> None:
        """Refuses what makes no sense.

        Raises:
          ValueError: names the option.
        """
        super().check()
        if self.keep and self.picture is None:
            raise ValueError("keep is about a picture: pass picture")


@dataclasses.dataclass(frozen=True)
class SeenOptions(VaryOptions):
    """The options of a prior that stands beside CLIP's image encoder.

    Attributes:
      prior_strength: how much of the picture's embedding the prior changes, by the prompt, from 0 to 1; by default it
        changes nothing.
      blend: pairs of a picture, uint8 [b h w 3], or a text, and its weight, whose embeddings' sum is drawn.
    """

    prior_strength: float | None = None
    blend: Any = ()

    def check(self) -> None:
        """Refuses what makes no sense.

        Raises:
          ValueError: names the option.
        """
        super().check()
        for n, pair in enumerate(self.blend):
            if not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) != 2:
                raise ValueError(f"blend[{n}] is {pair!r}: expected a pair of a picture or a text, and its weight")
            if isinstance(pair[1], bool) or not isinstance(pair[1], int | float) or not np.isfinite(pair[1]):
                raise ValueError(f"the weight of blend[{n}] is {pair[1]!r}: expected a finite number")
        if len(self.blend) and self.picture is not None:
            raise ValueError("picture and blend were both given: put the picture into blend")
        strength = self.prior_strength
        if strength is None:
            return
        if isinstance(strength, bool) or not isinstance(strength, int | float) or not 0 < strength <= 1:
            raise ValueError(f"prior_strength is {strength!r}: expected a number above 0 and at most 1")
        if self.picture is None and not len(self.blend):
            raise ValueError("prior_strength is about an embedding that is given: pass picture or blend")


def slerp(a: Float[Array, "b e"], b: Float[Array, "b e"], t: Float[Array, " b"]) -> Float[Array, "b e"]:
    """Walks from a to b on the sphere: directions by their angle, lengths linearly.

    sin((1 - t) w) / sin(w) a + sin(t w) / sin(w) b for unit vectors with the angle w between them.
    """
    t = t[:, None]
    lengths = [jnp.linalg.norm(x, axis=1, keepdims=True) for x in (a, b)]
    u, v = (x / jnp.maximum(length, 1e-12) for x, length in zip((a, b), lengths, strict=True))
    angle = jnp.arccos(jnp.clip((u * v).sum(1, keepdims=True), -1, 1))
    near = jnp.sin(angle) < 1e-4  # all between them are alike
    sine = jnp.where(near, 1.0, jnp.sin(angle))
    shares = [jnp.where(near, x, jnp.sin(x * angle) / sine) for x in (1 - t, t)]
    return (shares[0] * u + shares[1] * v) * ((1 - t) * lengths[0] + t * lengths[1])


def make_look(nets: Mapping[str, Any]) -> Callable[[Any, Any], dict[str, Array]]:
    """Returns the function (params, batch) -> {seen, embed}: embeddings of `picture` as it is, and as it is moved.

    `batch` is as `MixOptions.batch` makes it, with the ids of the prompts as `text` where it has `described`.
    """

    def program(params: Params, batch: Any) -> dict[str, Array]:
        def see(x: Array) -> Array:
            net = nets["image_encoder"]
            out: Any = ClipImage(net).apply(
                {"params": params["image_encoder"]}, prepare(x.astype(jnp.float32) / 255, net.size)
            )
            return out[1].astype(jnp.float32)

        def read(tokens: Array) -> Array:
            out: Any = ClipText(nets["text_encoder"]).apply({"params": params["text_encoder"]}, tokens)
            return out[1].astype(jnp.float32)

        seen = moved = see(batch["picture"])
        if "towards" in batch:
            other, share = see(batch["towards"]), batch["mix"][:, None]
            line = (1 - share) * seen + share * other
            moved = jnp.where(batch["straight"][:, None], line, slerp(seen, other, batch["mix"]))
        if "described" in batch:
            change = read(batch["text"]) - read(batch["described"])
            size = jnp.linalg.norm(seen, axis=1, keepdims=True)
            change = size * change / jnp.maximum(jnp.linalg.norm(change, axis=1, keepdims=True), 1e-12)
            moved = slerp(seen, change, batch["mix"])
        return {"seen": seen, "embed": moved}

    return program
