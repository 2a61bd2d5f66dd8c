"""The arrays that a call of a pipeline gives its program, checked on the host before anything compiles."""

import dataclasses
import difflib
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.data import prompt as prompt_text
from jaxdiff.data.tokenizer_clip import ClipTokenizer
from jaxdiff.data.tokenizer_unigram import Unigram
from jaxdiff.pipelines import canvas
from jaxdiff.pipelines.model import Model
from jaxdiff.typing import Key

GOOD, BAD = 6.0, 2.5
"""Aesthetic scores that SDXL's refiner takes for the prompt and for the negative one."""


def check_key(key: Any) -> Key:
    """Checks that keys are one key [], or keys [b].

    Raises:
      ValueError: if it is a number or a raw array of uint32, as the old `jax.random.PRNGKey` makes.
    """
    if isinstance(key, jax.Array) and jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key) and key.ndim < 2:
        return key
    what = f"{key.dtype} of shape {key.shape}" if hasattr(key, "dtype") else repr(key)
    raise ValueError(f"key is {what}: expected jax.random.key(seed), or as many of them as pictures, [pictures]")


def root_key(seed: int) -> Key:
    """Returns the key of a seed of up to 64 bits; below 2^32 it is `jax.random.key(seed)`.

    Raises:
      ValueError: for other numbers.
    """
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed is {seed}: expected 0 to 2^64 - 1")
    key = jax.random.key(seed % 2**32)
    return jax.random.fold_in(key, seed >> 32) if seed >> 32 else key


def prompts(asked: str | Sequence[str]) -> list[str]:
    """Prompts as a list.

    Raises:
      ValueError: if there is none.
    """
    listed = [asked] if isinstance(asked, str) else list(asked)
    if not listed:
        raise ValueError("no prompt was given: pass at least one")
    return listed


def check_task(model: Model, o: Any) -> None:
    """Refuses what is missing in these options for this model's task, and what it would not look at."""
    image, mask, strength, picture, noise = o.image, o.mask, o.strength, o.picture, o.init_noise
    if model.deep and o.depth is None:
        raise ValueError("this model takes a map of depth: pass depth, a picture of how far away each place is")
    if model.extra and not model.deep and image is None:
        what = "enlarges" if model.enlarges else "edits" if model.edits else "fills a part of"
        raise ValueError(f"this model {what} a picture: pass image" + (" and mask" if model.fills else ""))
    if mask is not None and (image if not model.enlarges else o.original) is None:
        needed = "original" if model.enlarges else "image"
        raise ValueError(f"a mask was given without the picture it is for: pass {needed}")
    if model.enlarges and strength is not None and o.original is None:
        raise ValueError("strength is for an enlarged picture that starts from another: pass original")
    if model.fills and mask is None:
        raise ValueError("this model fills a part of a picture: pass mask, 1 where new content goes")
    if o.denoising_start is not None and image is None:
        raise ValueError("denoising_start continues what another model began: pass its latents as image")
    if strength is not None and image is None and noise is None:
        raise ValueError("strength is for models that start from a picture: pass image, or leave strength out")
    if model.looks and picture is None and o.embed is None:
        raise ValueError("this model looks at a picture: pass picture")
    if model.embed and o.embed is None and not model.looks:
        raise ValueError(
            "this model draws CLIP's embedding of a picture: pass embed, or give it as a later stage of its prior"
        )


def size(
    model: Model,
    own: int | Sequence[int],
    image: Any,
    noise: Any,
    height: int | None,
    width: int | None,
) -> tuple[int, int]:
    """Returns the size of the pictures: as asked for, else the image's or noise's, else the model's (in latents)."""
    for name, x in (("image", image), ("init_noise", noise)):
        if x is not None and (not hasattr(x, "shape") or len(x.shape) != 4):
            shape = f"has shape {x.shape}" if hasattr(x, "shape") else f"is a {type(x).__name__}"
            raise ValueError(f"{name} {shape}: expected an array [pictures, height, width, channels]")
    if noise is not None:
        sides = [side * model.factor for side in noise.shape[1:3]]
    elif image is not None:
        sides = [side * (1 if image.dtype == np.uint8 else model.factor) for side in image.shape[1:3]]
        if model.enlarges and model.picture not in (
            "blurred",
            "semantic_map",
        ):  # four times in latents; in pixels to the size that the model was trained on
            sides = [side * model.factor for side in (image.shape[1:3] if model.factor > 1 else _both(own))]
    else:
        sides = [side * model.factor for side in _both(own)]
    return canvas.fit(height or sides[0], width or sides[1], model.unit)


def _both(own: int | Sequence[int]) -> Sequence[int]:
    return (own, own) if isinstance(own, int) else own


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Size:
    """The size of the latents, which a program is compiled for: it belongs to the tree of its arguments."""

    height: int
    width: int


def first_noise(model: Model, noise: np.ndarray | None, count: int, size: tuple[int, int]) -> dict[str, Any]:
    """Returns the `size` of the latents, and `noise` if given."""
    h, w = (side // model.factor for side in size)
    batch: dict[str, Any] = {"size": Size(h, w)}
    if noise is not None:
        _check_real("init_noise", noise)
        expected = (count, h, w, model.channels)
        if noise.shape != expected:
            raise ValueError(
                f"init_noise has shape {noise.shape}, expected {expected}: [pictures, height, width, channels] of the "
                "latents"
            )
        batch["noise"] = noise.astype(np.float32)
    return batch


def _check_real(name: str, x: np.ndarray) -> None:
    if not jnp.issubdtype(x.dtype, jnp.floating) or not np.isfinite(x).all():
        kind = f"of {x.dtype}" if not jnp.issubdtype(x.dtype, jnp.floating) else "not finite everywhere"
        raise ValueError(f"{name} is {kind}: expected finite floating-point numbers")


def pictures(model: Model, image: Any, mask: np.ndarray | None, count: int, size: tuple[int, int]) -> dict[str, Any]:
    """Returns `image`, uint8 or latents, and `mask`, in the size that the model wants."""
    small = tuple(side // model.factor for side in size)
    if model.enlarges and image.dtype != np.uint8:
        if model.factor > 1 and image.shape[1:3] != small:
            raise ValueError(f"image has shape {image.shape}: expected sides of {small[0]}x{small[1]}")
        return {"image": _float_pictures(image, count)}
    if image.dtype != np.uint8:
        if image.shape != (count, *small, model.channels) or mask is not None or model.extra:
            raise ValueError(
                f"image is {image.dtype} of shape {image.shape}: expected uint8 pictures; or latents "
                f"{(count, *small, model.channels)} without a mask, where the model starts from them"
            )
        _check_real("image", image)
        return {"image": image.astype(np.float32)}
    image = canvas.check_pictures(image, count)
    if model.enlarges and model.factor == 1:  # the program makes it larger
        return {"image": image}
    scaled = canvas.nearest if model.picture == "semantic_map" else canvas.resize
    rows = {"image": scaled(image, *(small if model.enlarges else size))}
    if mask is not None:
        rows["mask"] = canvas.resize_mask(canvas.check_mask(mask, image), *size)
    return rows


def _float_pictures(image: Any, count: int) -> Any:
    """Returns pictures in [-1, 1], such as the stage before hands on; they may lie on a device."""
    if image.shape[0] != count or image.shape[-1] != 3:
        raise ValueError(f"image has shape {image.shape}: expected [{count}, height, width, 3], as the prompts are")
    if isinstance(image, np.ndarray):
        _check_real("image", image)
    return image.astype(np.float32)


def original(x: Any, mask: Any, count: int, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """Returns `original` and `mask` of an enlarged picture, in its size."""
    if x is None:
        return {}
    x = canvas.check_pictures(x, count, "original")
    rows = {"original": canvas.resize(x, *size)}
    if mask is not None:
        rows["mask"] = canvas.resize_mask(canvas.check_mask(mask, x), *size)
    return rows


def depth(model: Model, x: Any, count: int, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """Returns `depth` in the size of latents, from -1 where it is farthest to 1 where it is nearest.

    Raises:
      ValueError: if it is the same everywhere.
    """
    maps = canvas.check_pictures(x, count, "depth").mean(-1, keepdims=True)
    maps = canvas.cubic(maps, *(side // model.factor for side in size))
    low, high = maps.min((1, 2, 3), keepdims=True), maps.max((1, 2, 3), keepdims=True)
    if (low == high).any():
        raise ValueError("depth is the same everywhere: expected a map, bright where it is near")
    return {"depth": (2 * (maps - low) / (high - low) - 1).astype(np.float32)}


def hints(model: Model, pictures: Sequence[np.ndarray], count: int, size: tuple[int, int]) -> dict[str, Any]:
    """Returns `hints` for the ControlNets and `hint` for the T2I-adapter."""
    if model.nets["unet"].hint and len(pictures) == 1:
        sides = (8 * (side // model.factor) for side in size)
        return {"depth": canvas.resize(canvas.check_pictures(pictures[0], count, "hints"), *sides)}
    wanted = [*model.named("controlnet"), *model.named("adapter"), *(["unet"] if model.nets["unet"].hint else [])]
    if len(pictures) != len(wanted):
        raise ValueError(
            f"{len(pictures)} hints were given: expected {len(wanted)}"
            + (f", for {', '.join(wanted)}" if wanted else "; load the model with a ControlNet or a T2I-adapter")
        )
    fitted = [canvas.resize(canvas.check_pictures(hint, count, "hints"), *size) for hint in pictures]
    last = {"hint": fitted.pop()} if "adapter" in model.nets else {}
    if last and model.nets["adapter"].in_channels == 1:
        last["hint"] = last["hint"].mean(-1, keepdims=True).round().astype(np.uint8)
    return {**last, **({"hints": tuple(fitted)} if fitted else {})}


def embeds(model: Model, embed: Any, away: Any, count: int) -> dict[str, Any]:
    """Returns `embed` and `no_embed`, which may lie on devices.

    Raises:
      ValueError: if they are of another number or width than the model's.
    """
    away = jnp.zeros_like(embed) if away is None else away
    for name, x in (("embed", embed), ("no_embed", away)):
        if getattr(x, "shape", None) != (count, model.embed):
            what = f"has shape {x.shape}" if hasattr(x, "shape") else f"is a {type(x).__name__}"
            raise ValueError(f"{name} {what}: expected {(count, model.embed)}, the embeddings that this model draws")
        if isinstance(x, np.ndarray):
            _check_real(name, x)
    return {"embed": embed.astype(np.float32), "no_embed": away.astype(np.float32)}


def weights(model: Model, hints: Sequence[float], loras: Sequence[float], count: int) -> dict[str, np.ndarray]:
    """Returns how much ControlNets, the T2I-adapter and `count` LoRAs count."""
    controls, adapter = len(model.named("controlnet")), "adapter" in model.nets
    hints = hints or (1.0,) * (controls + adapter)
    for what, numbers, expected in (("hint_weights", hints, controls + adapter), ("lora_weights", loras, count)):
        if len(numbers) != expected:
            raise ValueError(f"{what} has {len(numbers)} numbers: expected {expected}")
        if not np.isfinite(np.asarray(numbers, np.float64)).all():
            raise ValueError(f"{what} is {tuple(numbers)}: expected finite numbers")
    return {
        "control": np.array(hints[:controls], np.float32),
        "adapter": np.array(hints[-1] if adapter else 0, np.float32),
        "lora": np.array(loras, np.float32),
    }


def encoded(
    model: Model,
    tokenizers: Mapping[str, Any],
    prompts: Sequence[str],
    keep: bool,
    chunks: int,
    size: tuple[int, int],
    score: float,
) -> dict[str, Any]:
    """Returns what `program.conditions` takes as a prompt; without `keep` it stands for zeros.

    Raises:
      ValueError: if `chunks` is below 1, or a prompt is none of the classes that the model knows.
    """
    count = len(prompts)
    batch: dict[str, Any] = {"keep": np.full(count, keep, np.float32), "text": {}}
    for name, length in model.texts.items():
        tokenizer = tokenizers[name.replace("text_encoder", "tokenizer")]
        if not isinstance(tokenizer, ClipTokenizer):
            batch["text"][name] = np.stack([tokenizer.encode(plain(tokenizer, text), length) for text in prompts])
            continue
        rows = [prompt_text.encode(tokenizer, text, chunks, length) for text in prompts]
        batch["text"][name] = tuple(np.stack(x) for x in zip(*rows, strict=True))
    if model.labels:
        batch["label"] = np.array([label(model, text) for text in prompts], np.int32)
    if model.sizes:
        last = (score,) if model.sizes == 5 else size
        batch["sizes"] = np.tile(np.array([*size, 0, 0, *last], np.float32), (count, 1))
    return batch


def plain(tokenizer: Any, text: str) -> str:
    """Returns a text as the model was trained to read it: DeepFloyd IF knows small letters only."""
    return text.lower().strip() if isinstance(tokenizer, Unigram) and tokenizer.start is None else text


def label(model: Model, prompt: str) -> int:
    """Returns the class of that name; of an empty prompt the label that stands for nothing.

    Raises:
      ValueError: if there is none; lists some that there are, the nearest names first.
    """
    if not prompt:
        return model.nets["unet"].labels
    if prompt in model.labels:
        return model.labels.index(prompt)
    near = difflib.get_close_matches(prompt, model.labels, n=3, cutoff=0.4)
    listed = [*near, *(name for name in model.labels if name not in near)]
    more = f" and {len(listed) - 10} more" if len(listed) > 10 else ""
    raise ValueError(f"{prompt!r} is not a class of this model: expected one of {', '.join(listed[:10])}{more}")


def for_each(asked: str | Sequence[str] | None, count: int) -> list[str]:
    """Returns negative prompts, one for each picture.

    Raises:
      ValueError: if there are several, but not one for each.
    """
    words = [asked or ""] if isinstance(asked, str | None) else list(asked)
    words = words * count if len(words) == 1 else words
    if len(words) != count:
        raise ValueError(f"there are {len(words)} negative prompts for {count} pictures: expected one, or one for each")
    return words


def warn_of_cut(prompts: Sequence[str], cut: Callable[[str], str]) -> None:
    """Says what of each prompt a model does not see: its end, which `cut` gives; '' if all is seen."""
    for text in sorted(set(prompts)):
        if unseen := cut(text):
            warnings.warn(f"the prompt is too long for this model; it does not see {unseen!r}", stacklevel=4)
