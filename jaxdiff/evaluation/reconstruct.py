"""Pictures through an autoencoder and back, to be measured against themselves."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.evaluation.pictures import Pictures
from jaxdiff.models.autoencoder_kl import AutoencoderConfig, AutoencoderKL
from jaxdiff.models.autoencoder_tiny import AutoencoderTiny, TinyConfig
from jaxdiff.models.autoencoder_vq import AutoencoderVQ, VQConfig
from jaxdiff.parallel.spread import Spread
from jaxdiff.pipelines.program import to_pixels
from jaxdiff.pretrained.read import read_component

NETWORKS: dict[type, Any] = {AutoencoderConfig: AutoencoderKL, TinyConfig: AutoencoderTiny, VQConfig: AutoencoderVQ}


def reconstructor(path: Path, pictures: Pictures) -> Callable[..., np.ndarray]:
    """Returns a function (numbers of pictures as text, key) -> pictures after encoder and decoder, for `samples.make`.

    Args:
      path: a folder with an autoencoder of diffusers, or a model's that has one in vae/ or vqvae/.
      pictures: what goes through.

    Raises:
      FileNotFoundError: if there is none.
      ValueError: if it is not an autoencoder, or pictures of this size do not go through.
    """
    folder = next((path / name for name in ("vae", "vqvae") if (path / name).is_dir()), path)
    part = read_component(folder)
    if type(part.config) not in NETWORKS:
        raise ValueError(f"{folder} is a {part.kind}, no autoencoder")
    apply = NETWORKS[type(part.config)](part.config).apply

    def through(params: Any, x: Any) -> Any:
        return to_pixels(apply({"params": params}, x.astype(jnp.float32) / 127.5 - 1))

    # a size that does not halve is refused by the network itself, before anything compiles
    jax.eval_shape(through, part.params, jax.ShapeDtypeStruct((1, *pictures.shape, 3), np.uint8))
    run = Spread(through, "pmap")

    def pipe(numbers: Sequence[str], *, key: Any) -> np.ndarray:
        return run(part.params, np.stack([pictures.read(int(number)) for number in numbers]))

    return pipe
