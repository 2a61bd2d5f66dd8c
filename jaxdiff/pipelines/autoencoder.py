"""An autoencoder by itself: pictures through it and back, and what its decoder makes of noise."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from jaxdiff.data import picture
from jaxdiff.models.autoencoder_kl import unscaled
from jaxdiff.parallel import MeshSpec
from jaxdiff.parallel.spread import Spread
from jaxdiff.pipelines.program import to_pixels
from jaxdiff.pretrained.read import Component
from jaxdiff.sampling.kernel import normal
from jaxdiff.typing import Key


@dataclasses.dataclass(frozen=True)
class Options:
    """Lists what a call may be given.

    Attributes:
      init: picture files to take through the autoencoder, scaled and cut to the size of its training. Without any, unit
        noise is decoded that has the deviation of its latents: samples of a beta-VAE, and of others what their decoder
        makes of latents without structure.
    """

    init: tuple[Path, ...] = ()


class AutoencoderPipeline:
    """Reconstructs pictures, or decodes noise.

    Attributes:
      Options: see `Options`.
      part: the autoencoder.
    """

    Options = Options

    def __init__(self, part: Component, size: int, spec: MeshSpec | Literal["pmap"] = MeshSpec()):
        """Compiles nothing yet.

        Args:
          part: an AutoencoderKL or VQModel.
          size: side of the pictures it was trained on.
          spec: how devices share a batch.
        """
        self.part, self._size = part, size
        net, network = part.config, part.config.build()
        side, channels = size // net.unit, getattr(net, "width", net.latent_channels)

        def through(params: Any, x: Any) -> Any:
            return to_pixels(network.apply({"params": params}, x.astype(jnp.float32) / 127.5 - 1))

        def drawn(params: Any, keys: Any) -> Any:
            z = unscaled(net, normal(keys, (side, side, channels)))
            return to_pixels(network.apply({"params": params}, z, method="decode"))

        self._through, self._drawn = Spread(through, spec), Spread(drawn, spec)

    def __call__(
        self, prompts: str | Sequence[str], *, key: Key, options: Any = None, **fields: Any
    ) -> UInt8[np.ndarray, "b h w 3"]:
        """Makes a picture of each file in `init`, or where there are none, of each prompt.

        Args:
          prompts: an empty text for each picture.
          key: for all, or one for each.
          options: an `Options`; None: all defaults.
          fields: by name, before those of `options`.

        Raises:
          ValueError: for a prompt that is not empty, and a name that is not an option.
          OSError: for a file that is not a picture.
        """
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        if prompt := next(filter(None, prompts), None):
            raise ValueError(f"an autoencoder reads no prompt, and was given {prompt!r}: leave it out, or give init")
        if unknown := fields.keys() - {field.name for field in dataclasses.fields(Options)}:
            raise ValueError(f"there is no option {min(unknown)!r}: an autoencoder takes init")
        if files := dataclasses.replace(options or Options(), **fields).init:
            return self.reconstruct(np.stack([picture.decode(Path(file), self._size) for file in files]))
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(np.arange(len(prompts))) if key.ndim == 0 else key
        return self._drawn(self.part.params, keys)

    def reconstruct(self, images: UInt8[np.ndarray, "b h w 3"]) -> UInt8[np.ndarray, "b h w 3"]:
        """Takes pictures through encoder and decoder, by the mean of the latents.

        Raises:
          ValueError: if their sides do not halve as often as the autoencoder does.
        """
        self.part.config.check(*images.shape[1:3])
        return self._through(self.part.params, images)
