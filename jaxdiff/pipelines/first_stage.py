"""Finds and reads what a latent diffusion model stands on: an autoencoder, perhaps CLIP's text encoder.

What the encoder says of a picture, before anything is drawn, are its `moments`: mean and log-variance side by side for
an autoencoder with a Gaussian (KL), the latents themselves for others; of one with a codebook (VQ) before they are
quantised, which its decoder does. They do not depend on the latent scale, so it may be measured on them.
"""

import dataclasses
import functools
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from jaxdiff.diffusion import draws
from jaxdiff.models import autoencoder_kl
from jaxdiff.models.text_clip import ClipText
from jaxdiff.pipelines.program import AUTOENCODERS
from jaxdiff.pretrained.components import family
from jaxdiff.pretrained.read import Component, read_component, read_json
from jaxdiff.pretrained.rules import flatten
from jaxdiff.typing import Key, Params

_LATENT = 2**16
"""Folded into an example's key for its latents; `draws` has the numbers of other uses."""
TEXTS = ("CLIPTextModel", "CLIPTextModelWithProjection")


def moments(
    part: Component, params: Params, image: UInt8[Array, "b h w 3"] | Float[Array, "b h w 3"]
) -> Float[Array, "b i j m"]:
    """Encodes pictures of values from 0 to 255."""
    network = AUTOENCODERS[part.kind](part.config)
    z = network.apply({"params": params}, image.astype(jnp.float32) / 127.5 - 1, method="encode")
    return jnp.concatenate(z, -1) if isinstance(z, tuple) else z


def latents(part: Component, moments: Float[Array, "b i j m"], keys: Key) -> Float[Array, "b i j z"]:
    """Draws latents of moments, one a picture from its key, and scales them to what a diffusion model sees."""
    z = moments.astype(jnp.float32)
    if part.kind == "AutoencoderKL":
        mean, log_var = jnp.split(z, 2, -1)
        z = autoencoder_kl.sample(mean, log_var, draws.fold(keys, _LATENT))
    return autoencoder_kl.scaled(part.config, z)


def reduced(image: UInt8[Array, "b h w 3"], factor: int) -> Float[Array, "b i j 3"]:
    """Returns pictures in the size of their latents, each value the mean of the pixels it stands for, from 0 to 255."""
    b, h, w, c = image.shape
    return image.astype(jnp.float32).reshape(b, h // factor, factor, w // factor, factor, c).mean((2, 4))


def states(part: Component, params: Params, tokens: Int[Array, "b l"]) -> Float[Array, "b l d"]:
    """Returns the text states that the U-Net attends to: those of the last block, after the final norm."""
    context, _ = ClipText(part.config).apply({"params": params}, tokens)
    return context.astype(jnp.float32)


def factor(part: Component) -> int:
    """Returns picture pixels for each latent, along a side."""
    net = getattr(part.config, "net", part.config)
    return 2 ** (len(getattr(net, "channels", ()) or net.encoder_channels) - 1)


@functools.cache
def _moment_shape(kind: str, config: Any, side: int) -> tuple[int, ...]:
    def encode(image: Array) -> Any:
        network = AUTOENCODERS[kind](config)
        return network.init_with_output(jax.random.key(0), image, method="encode")[0]

    latents = jax.eval_shape(encode, jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32))
    return tuple(jax.eval_shape(lambda z: jnp.concatenate(z, -1) if isinstance(z, tuple) else z, latents).shape[1:])


def channels(part: Component) -> tuple[int, int]:
    """Returns the channels of the moments, and of the latents."""
    of_moments = _moment_shape(part.kind, part.config, factor(part))[-1]
    return of_moments, of_moments // 2 if part.kind == "AutoencoderKL" else of_moments


def fingerprint(part: Component) -> str:
    """Returns the hash of a network's weights, whatever the dtype of their file; the latent scale is no part of it."""
    digest = hashlib.sha256(part.kind.encode())
    for path, x in sorted(flatten(part.params).items()):
        digest.update(f"{path} {x.shape}".encode())
        digest.update(np.asarray(x, np.float32).tobytes())
    return digest.hexdigest()


def with_scale(part: Component, scale: float) -> Component:
    """Returns the autoencoder with another latent scale, and no shift."""
    without = ("shift_factor", "latents_mean", "latents_std")
    json = {name: value for name, value in part.json.items() if name not in without} | {"scaling_factor": scale}
    return dataclasses.replace(part, json=json, config=family(part.kind).config(json))


def outline(folder: Path) -> Component:
    """Returns a network as its config.json describes it, without its weights.

    Raises:
      FileNotFoundError, ValueError: if the file is missing, damaged, or of a class that is not supported.
    """
    json = read_json(folder / "config.json")
    listed = json.get("architectures")
    kind = json.get("_class_name") or (listed[0] if isinstance(listed, list) and listed else None)
    if not isinstance(kind, str):
        raise ValueError(f"{folder / 'config.json'} does not say its class: expected _class_name or architectures")
    return Component(kind, json, family(kind).config(json), {})


def find_autoencoder(path: Path) -> Path | None:
    """Returns the folder of the autoencoder in a directory: it, a model's, or that of latents; None: there is none."""
    beside = [path / name for name in ("vae", "vqvae", "autoencoder")]
    for folder in (path, *beside):
        if (folder / "config.json").is_file() and read_json(folder / "config.json").get("_class_name") in AUTOENCODERS:
            return folder
    return None


def find_text(path: Path) -> tuple[Path, Path]:
    """Returns the folders of CLIP's text encoder and tokenizer in a model's directory.

    Raises:
      FileNotFoundError, ValueError: if there are none, or those of another class; says what is expected.
    """
    for name in ("text_encoder", "tokenizer"):
        if not (path / name).is_dir():
            raise FileNotFoundError(
                f"{path} has no {name}: give a model's directory, with CLIP's text_encoder and tokenizer"
            )
    if (kind := outline(path / "text_encoder").kind) not in TEXTS:
        raise ValueError(f"{path / 'text_encoder'} is a {kind}: expected {' or '.join(TEXTS)}")
    return path / "text_encoder", path / "tokenizer"


def write_once(folder: Path, write: Callable[[Path], object]) -> None:
    """Writes a folder, whole or not at all; one that is there stays as it is."""
    if folder.is_dir():
        return
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        write(part)
        part.rename(folder)
    except OSError:
        if not folder.is_dir():  # another process was faster
            raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def read_autoencoder(folder: Path) -> Component:
    """Reads an autoencoder from the folder of its config.json and weights.

    Raises:
      FileNotFoundError, ValueError: as `read_component`, and if it does not read and make pictures of 3 channels.
    """
    part = read_component(folder)
    if part.kind not in AUTOENCODERS:
        raise ValueError(f"{folder} is a {part.kind}: expected one of {', '.join(AUTOENCODERS)}")
    return check_pictures(part, folder)


def check_pictures(part: Component, path: Path) -> Component:
    """Refuses an autoencoder of other things than pictures of 3 channels."""
    net = getattr(part.config, "net", part.config)
    if (net.in_channels, net.out_channels) != (3, 3):
        raise ValueError(f"{path} reads {net.in_channels} channels and makes {net.out_channels}: expected 3 and 3")
    return part
