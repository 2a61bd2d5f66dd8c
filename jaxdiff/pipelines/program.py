"""The compiled part of a pipeline: from token ids and pictures to pixels, as one pure function.

    text, pictures -> conditions -> guided scan over the U-Net -> decoder -> uint8

All tasks share this function. The inputs that a task has decide, at compile time, what is encoded, what is concatenated
to the U-Net's input, and what is blended after each step. Weights, the sampler's table, tokens, strengths and keys are
arguments, so a change of their values compiles nothing.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt8

from jaxdiff.models.adapter import Adapter
from jaxdiff.models.autoencoder_kl import AutoencoderKL, scaled, sliced, tiled, unscaled
from jaxdiff.models.autoencoder_tiny import AutoencoderTiny
from jaxdiff.models.autoencoder_vq import AutoencoderVQ
from jaxdiff.models.image_clip import ClipImage, Resampler, SafetyChecker, StateTokens, prepare
from jaxdiff.models.text import TextConfig, TextTransformer
from jaxdiff.models.text_bert import BertConfig, BertText
from jaxdiff.models.text_clip import ClipText
from jaxdiff.models.text_t5 import T5Config, T5Encoder
from jaxdiff.models.text_xlm import XlmConfig, XlmText
from jaxdiff.models.unet import with_sizes
from jaxdiff.nn.embedding import sinusoidal
from jaxdiff.pipelines.guided import agreeing, blend_known, guided
from jaxdiff.pipelines.model import Model
from jaxdiff.pipelines.plan import Plan
from jaxdiff.pretrained import lora
from jaxdiff.pretrained.quantize import dequantize
from jaxdiff.sampling.kernel import drive, normal
from jaxdiff.sampling.table import table_kernel
from jaxdiff.typing import Cond, Key, Params

FIRST, LOW = 2**31 - 1, 2**31 - 2
"""Folded into a picture's key for its first noise and that of a low resolution picture; steps fold in their number."""

AUTOENCODERS = {"AutoencoderKL": AutoencoderKL, "AutoencoderTiny": AutoencoderTiny, "VQModel": AutoencoderVQ}


def unit_noise(keys: Key, which: int, shape: tuple[int, ...]) -> Float[Array, " b *s"]:
    """Returns unit Gaussian noise, picture by picture."""
    return normal(jax.vmap(lambda key: jax.random.fold_in(key, which))(keys), shape)


def make_program(model: Model) -> Callable[[Any, Any], dict[str, Array]]:
    """Returns the function ((params, plan), batch) -> {pixels, latents, bad, flagged}.

    `params` are by component, and `lora` is a tuple of LoRAs. `batch` has `keys` [b] and the `size` of the
    latents; `prompt` and `negative` where the model has conditions (see `conditions`); and of `noise`,
    `image`, `mask`, `hints`, `hint`, `depth`, `picture`, `picture_weight`, `embed`, `no_embed` and `level` what is
    given. `bad` [b] tells pictures
    that are not finite, `flagged` [b] those that the safety checker blackened.
    """

    def program(arguments: tuple[Params, Plan], batch: Any) -> dict[str, Array]:
        params, plan = arguments
        params = with_loras(params, plan.weights["lora"])
        noise = batch.get("noise")
        if noise is None:
            noise = unit_noise(batch["keys"], FIRST, (batch["size"].height, batch["size"].width, model.channels))
        pictures = read_pictures(model, params, plan, batch)
        conds = conditions(model, params, plan.weights, batch, pictures, plan.low)
        denoise = guided(model, params, conds, plan.weights, plan.timesteps)
        if model.known and "mask" in pictures:
            denoise = agreeing(denoise, pictures["known"], pictures["mask"])
        kernel = table_kernel(denoise, plan.table.b.shape[1])
        x = plan.noise * noise
        if "known" in pictures:
            x = x + plan.signal * pictures["known"]
        if "mask" in pictures and model.blends:
            kernel = blend_known(kernel, pictures["known"], noise, pictures["mask"])
        latents = drive(kernel, plan.table, x, batch["keys"])
        assert isinstance(latents, jax.Array)
        picture = decode(model, params, latents)
        pixels = to_pixels(picture)
        out = {"latents": latents, "bad": ~jnp.isfinite(picture).all((1, 2, 3))}
        if model.safety:
            out["flagged"] = unsafe(model, params, pixels)
            pixels = jnp.where(out["flagged"][:, None, None, None], jnp.uint8(0), pixels)
        return {**out, "pixels": pixels}

    return program


def to_pixels(x: Float[Array, "*s"]) -> UInt8[Array, "*s"]:
    """Maps [-1, 1] to 0..255, rounded."""
    return jnp.round(jnp.clip(x * 127.5 + 127.5, 0, 255)).astype(jnp.uint8)


def with_loras(params: Params, weights: Float[Array, " n"]) -> Params:
    """Adds LoRAs of these weights to parameters by component."""
    loras, merged = params.get("lora", ()), dict(params)
    for name in {name for one in loras for name in one}:
        merged[name] = lora.merge(params[name], [one.get(name, {}) for one in loras], weights)
    return merged


def encode(model: Model, params: Params, x: Float[Array, "b h w c"]) -> Float[Array, "b i j z"]:
    """Returns what the autoencoder makes of pictures in [-1, 1], unscaled: its mean."""
    if "vae" not in model.nets:
        return x
    vae = AUTOENCODERS[model.kinds["vae"]](model.nets["vae"])
    z = vae.apply({"params": params["vae"]}, x, method="encode")
    return z[0] if isinstance(z, tuple) else z


def decode(model: Model, params: Params, latents: Float[Array, "b i j z"]) -> Float[Array, "b h w c"]:
    """Decodes latents to pictures."""
    if "vae" not in model.nets:
        return latents
    net = model.nets["vae"]
    vae = AUTOENCODERS[model.kinds["vae"]](net)
    unquantized = {"quantized": True} if getattr(net, "spatial", False) else {}  # Kandinsky's are left alone
    one = lambda z: vae.apply({"params": params["vae"]}, z, method="decode", **unquantized)
    z = unscaled(net, latents)
    if model.decode == "tiled":
        return tiled(one, z, factor=model.factor)
    return sliced(one, z) if model.decode == "sliced" else one(z)


def read_pictures(model: Model, params: Params, plan: Plan, batch: Any) -> dict[str, Array]:
    """Encodes `image` and `mask`: `known` latents, the `mask` in their size, and what is `joined` to the U-Net's input.

    How many channels its input has besides the latents tells a U-Net's task: 5 a mask and the masked picture's latents,
    3 a low resolution picture, as many as the latents the picture to edit.
    """
    if "image" not in batch:
        return {}
    x = batch["image"]
    if x.dtype != jnp.uint8 and not model.enlarges:  # latents
        return {"known": x}
    x = x if x.dtype != jnp.uint8 else x.astype(jnp.float32) / 127.5 - 1
    if model.enlarges:
        return enlarged(model, plan, batch, x)
    if model.edits:
        return {"joined": encode(model, params, x)}
    scale = (lambda z: scaled(model.nets["vae"], z)) if "vae" in model.nets else (lambda z: z)
    if "mask" not in batch:
        return {"known": scale(encode(model, params, x))}
    mask = batch["mask"][:, :: model.factor, :: model.factor]
    if model.known:
        return {"known": x, "mask": mask, "joined": jnp.concatenate([x * (1 - mask), 1 - mask], -1)}
    if not model.extra or model.deep:
        return {"known": scale(encode(model, params, x)), "mask": mask}
    if model.embed:
        known, kept = scale(encode(model, params, x)), kept_around(mask)
        return {"known": known, "mask": 1 - kept, "joined": jnp.concatenate([known * kept, kept], -1)}
    both = scale(encode(model, params, jnp.concatenate([x, x * (1 - batch["mask"])])))
    known, masked = jnp.split(both, 2)
    return {"known": known, "mask": mask, "joined": jnp.concatenate([mask, masked], -1)}


def kept_around(mask: Float[Array, "b i j 1"]) -> Float[Array, "b i j 1"]:
    """Returns 1 where a picture stays, 0 in a hole and, as Kandinsky was trained, at what touches it.

    Of the eight neighbours, those above to the right and below to the left are left out.
    """
    wide, (h, w) = jnp.pad(mask, ((0, 0), (1, 1), (1, 1), (0, 0))), mask.shape[1:3]
    near = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (1, 1))
    return 1 - functools.reduce(jnp.maximum, (wide[:, 1 + i : 1 + i + h, 1 + j : 1 + j + w] for i, j in near))


def enlarged(model: Model, plan: Plan, batch: Any, x: Float[Array, "b i j 3"]) -> dict[str, Array]:
    """Returns what `read_pictures` makes of a small picture: it with noise, and what the large one starts from."""
    alpha, sigma = plan.low

    def enlarge(x: Float[Array, "b i j 3"]) -> Array:
        if model.factor != 1:
            return x
        height, width = batch["size"].height, batch["size"].width
        if model.picture:  # GLIDE reads pictures of 8 bits
            return jax.image.resize(jnp.round((x + 1) * 127.5) / 127.5 - 1, (len(x), height, width, 3), "linear")
        return stretched(x, height, width)

    x = x if model.noised_small else enlarge(x)
    x = alpha * x + sigma * unit_noise(batch["keys"], LOW, x.shape[1:])
    pictures = {"joined": enlarge(x) if model.noised_small else x}
    if "original" in batch:
        pictures["known"] = batch["original"].astype(jnp.float32) / 127.5 - 1
        pictures |= {"mask": batch["mask"]} if "mask" in batch else {}
    if model.fills:
        kept = 1 - pictures["mask"]
        pictures["joined"] = jnp.concatenate([pictures["known"] * kept, kept, pictures["joined"]], -1)
    return pictures


def stretched(x: Float[Array, "b i j c"], height: int, width: int) -> Float[Array, "b h w c"]:
    """Enlarges pictures linearly between pixels; the corners' centres stay corners."""

    def between(small: int, large: int) -> Float[np.ndarray, "l s"]:
        at = np.linspace(0, small - 1, large)
        return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(small)[None])).astype(np.float32)

    rows, columns = between(x.shape[1], height), between(x.shape[2], width)
    return jnp.einsum("hi,bijc,wj->bhwc", rows, x, columns, precision=jax.lax.Precision.HIGHEST)


def conditions(
    model: Model,
    params: Params,
    weights: Mapping[str, Any],
    batch: Any,
    pictures: Mapping[str, Array],
    low: tuple[Any, Any] = (1.0, 0.0),
) -> tuple[Cond, ...]:
    """Returns the U-Net's conditions: with the prompt, and with the negative one; three for a picture to edit.

    `prompt` and `negative` are {text: {encoder: Encoded, or tokens [b l] for our own}, keep: [b] (0 replaces the states
    by zeros), sizes: [b n], label: [b]}, as far as the model has them.
    """
    parts = [batch[name] for name in ("prompt", "negative") if name in batch]
    net = model.nets["unet"]
    augment = batch["level"].astype(jnp.float32) if "level" in batch and net.augment else None
    if not parts:
        return (Cond(image=pictures.get("joined"), augment=augment),)
    ways = len(parts)
    text = jax.tree.map(lambda *x: jnp.concatenate(x), *parts)
    again = lambda x: jnp.concatenate([x] * ways)
    hints = tuple(again(hint.astype(jnp.float32) / 255) for hint in batch.get("hints", ()))
    cond = Cond(
        **read_text(model, params, text),
        hints=hints,
        label=again(batch["level"]) if model.enlarges and "level" in batch and not net.augment else text.get("label"),
        augment=None if augment is None else again(augment),
        image=again(pictures["joined"]) if "joined" in pictures else None,
    )
    if model.deep:
        cond = dataclasses.replace(cond, image=again(batch["depth"]))
    elif "depth" in batch:
        cond = dataclasses.replace(cond, image=again(batch["depth"].astype(jnp.float32) / 255))
    if model.noises:
        cond = dataclasses.replace(cond, pooled=noised(model, params, low, batch)[: ways * len(batch["keys"])])
    elif "embed" in batch:
        cond = dataclasses.replace(cond, embed=jnp.concatenate([batch[n] for n in ("embed", "no_embed")[:ways]]))
    if "hint" in batch:
        net = model.nets["adapter"]
        features = Adapter(net).apply({"params": params["adapter"]}, batch["hint"].astype(jnp.float32) / 255)
        cond = dataclasses.replace(cond, features=tuple(again(weights["adapter"] * y) for y in features))
    if "picture" in batch and not model.noises:
        seen = prepare(batch["picture"].astype(jnp.float32) / 255, model.nets["image_encoder"].size)
        seen = jnp.concatenate([seen, jnp.zeros_like(seen)][:ways])
        cond = dataclasses.replace(cond, **read_picture(model, params, seen, batch["picture_weight"]))
    rows = len(text["keep"]) // ways
    conds = [jax.tree.map(lambda x, n=n: x[n * rows : (n + 1) * rows], cond) for n in range(ways)]
    if model.edits and ways == 2:
        conds.append(dataclasses.replace(conds[1], image=jnp.zeros_like(conds[1].image)))
    return tuple(conds)


def noised(model: Model, params: Params, low: tuple[Any, Any], batch: Any) -> Float[Array, "b2 p"]:
    """Returns the conditions of Stable unCLIP's U-Net on embeddings: noised, with waves of the level; then zeros.

    The noise is of embeddings whose mean was taken off and whose deviation was divided out.
    """
    embed = batch.get("embed")
    if embed is None:
        net = model.nets["image_encoder"]
        seen = prepare(batch["picture"].astype(jnp.float32) / 255, net.size)
        embed = _pair(ClipImage(net).apply({"params": params["image_encoder"]}, seen))[1].astype(jnp.float32)
    mean, deviation = (params["image_normalizer"][name].astype(jnp.float32) for name in ("mean", "deviation"))
    noise = unit_noise(batch["keys"], LOW, embed.shape[1:])
    embed = (low[0] * (embed - mean) / deviation + low[1] * noise) * deviation + mean
    waves = sinusoidal(batch["level"].astype(jnp.float32), embed.shape[1], shift=0.0, sin_first=False)
    both = jnp.concatenate([embed, waves], -1)
    return jnp.concatenate([both, jnp.zeros_like(both)])


def read_text(model: Model, params: Params, text: Any) -> dict[str, Any]:
    """Encodes prompts: context and pooled vector, as fields of `Cond`.

    Of CLIP's encoders that is the states of all side by side, and the last one's vector.
    """
    contexts, pooled = list[Array](), None
    for name in model.named("text_encoder"):
        net = model.nets[name]
        if isinstance(net, TextConfig):
            weights_of, tokens = dequantize(params[name], net.dtype, text["text"][name])
            out: Any = TextTransformer(net).apply({"params": weights_of}, tokens)
            return dict(zip(("context", "context_mask", "pooled"), out, strict=True))
        if isinstance(net, XlmConfig):
            weights_of, tokens = dequantize(params[name], net.dtype, text["text"][name])
            return dict(zip(("context", "pooled"), XlmText(net).apply({"params": weights_of}, tokens), strict=True))
        if isinstance(net, BertConfig):
            weights_of, tokens = dequantize(params[name], net.dtype, text["text"][name])
            return {"context": BertText(net).apply({"params": weights_of}, tokens)}
        if isinstance(net, T5Config):
            weights_of, tokens = dequantize(params[name], net.dtype, text["text"][name])
            states = T5Encoder(net).apply({"params": weights_of}, tokens)
            assert isinstance(states, jax.Array)
            contexts.append(states)
            continue
        tokens, weights = text["text"][name]
        rows, chunks, length = tokens.shape
        weights_of, tokens = dequantize(params[name], net.dtype, tokens)
        states, vectors = _pair(
            ClipText(net).apply({"params": weights_of}, tokens.reshape(-1, length), model.skip, model.norm)
        )
        states = states.astype(jnp.float32).reshape(rows, chunks * length, -1)
        contexts.append(emphasised(states, weights.reshape(rows, -1)))
        pooled = vectors.reshape(rows, chunks, -1)[:, 0].astype(jnp.float32)  # of the first chunk
    if not contexts:
        return {}
    context = jnp.concatenate(contexts, -1) * text["keep"][:, None, None]
    if not model.sizes:
        return {"context": context}
    assert pooled is not None
    pooled = with_sizes(
        pooled * text["keep"][:, None], text["sizes"], model.waves, sin_first=model.nets["unet"].sin_first
    )
    return {"context": context, "pooled": pooled}


def emphasised(states: Float[Array, "b l d"], weights: Float[Array, "b l"]) -> Float[Array, "b l d"]:
    """States times their weights, then all times one number that gives back the mean they had."""
    changed = states * weights[..., None]
    old, new = (x.mean((1, 2), keepdims=True) for x in (states, changed))
    # exactly 1 where nothing is weighted, whatever the mean
    return changed * jnp.where(new == old, 1.0, old / jnp.where(new == 0, 1.0, new))


def read_picture(model: Model, params: Params, pixels: Array, weight: Float[Array, " b"]) -> dict[str, Any]:
    """Returns what a picture adds to `Cond`: tokens of an IP-adapter.

    Of a model that knows no text, the context itself.

    Rows whose pixels are all zero stand for no picture.
    """
    tokens = model.picture_tokens
    skip = int(isinstance(tokens, Resampler | StateTokens))
    encoder = ClipImage(model.nets["image_encoder"])
    states, vector = _pair(encoder.apply({"params": params["image_encoder"]}, pixels, skip))
    vector = vector * pixels.any((1, 2, 3))[:, None]
    if tokens is None:
        return {"context": vector[:, None]}
    projected = tokens.apply({"params": params["picture_tokens"]}, states if skip else vector)
    assert isinstance(projected, jax.Array)
    return {"picture": projected, "picture_weight": jnp.resize(weight, (len(projected),))}


def _pair(out: Any) -> tuple[Array, Array]:
    return out


def unsafe(model: Model, params: Params, pixels: UInt8[Array, "b h w 3"]) -> Bool[Array, " b"]:
    """Returns what the safety checker says."""
    net, weights = model.nets["safety_checker"], params["safety_checker"]
    checker = SafetyChecker(net, len(weights["concepts"]), len(weights["special"]))
    flags = checker.apply({"params": weights}, prepare(pixels.astype(jnp.float32) / 255, net.size))
    assert isinstance(flags, jax.Array)
    return flags
