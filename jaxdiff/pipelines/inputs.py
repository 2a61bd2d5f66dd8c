"""The arrays that a call of a pipeline gives its program, checked on the host before anything compiles."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxdiff.data import prompt as prompt_text
from jaxdiff.data.tokenizer_clip import ClipTokenizer
from jaxdiff.pipelines import canvas
from jaxdiff.pipelines.model import Model

GOOD, BAD = 6.0, 2.5
"""Aesthetic scores that SDXL's refiner is told for the prompt and for the negative one."""


def check_task(
    model: Model,
    image: np.ndarray | None,
    mask: np.ndarray | None,
    strength: float | None,
    picture: np.ndarray | None,
    noise: np.ndarray | None,
) -> None:
    """Refuses what is missing for this model's task, and what it would not look at."""
    extra, channels = model.extra, model.channels
    if extra and image is None:
        what = {3: "enlarges", channels: "edits", channels + 1: "fills a part of"}[extra]
        raise ValueError(f"this model {what} a picture: pass image" + (" and mask" if extra > channels else ""))
    if mask is not None and image is None:
        raise ValueError("a mask was given without the picture it is for: pass image")
    if extra > channels and mask is None:
        raise ValueError("this model fills a part of a picture: pass mask, 1 where new content goes")
    if mask is not None and 0 < extra <= channels:
        raise ValueError("this model takes no mask: it enlarges or edits whole pictures")
    if strength is not None and (0 < extra <= channels or (image is None and noise is None)):
        raise ValueError("strength is for models that start from a picture: pass image, or leave strength out")
    if model.looks and picture is None:
        raise ValueError("this model looks at a picture: pass picture")
    if picture is not None and not model.looks:
        raise ValueError(
            "this model looks at no picture: load it with an IP-adapter, or pass image to change a picture"
        )


def size(
    model: Model,
    own: int | Sequence[int],
    image: np.ndarray | None,
    noise: np.ndarray | None,
    height: int | None,
    width: int | None,
) -> tuple[int, int]:
    """Of the pictures: what is asked for, else what the image or the noise has, else the model's own (in latents)."""
    if noise is not None:
        sides = [side * model.factor for side in noise.shape[1:3]]
    elif image is not None:
        larger = model.factor if model.extra == 3 or image.dtype != np.uint8 else 1
        sides = [side * larger for side in image.shape[1:3]]
    else:
        sides = [side * model.factor for side in ((own, own) if isinstance(own, int) else own)]
    return canvas.fit(height or sides[0], width or sides[1], model.unit)


def first_noise(model: Model, noise: np.ndarray | None, count: int, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """`canvas`, an array of no bytes whose shape is that of the latents, and `noise` if given."""
    h, w = (side // model.factor for side in size)
    batch = {"canvas": np.zeros((count, h, w, 0), np.uint8)}
    if noise is not None:
        expected = (count, h, w, model.channels)
        if noise.shape != expected:
            raise ValueError(
                f"init_noise has shape {noise.shape}, expected {expected}: [pictures, height, width, channels] of the "
                "latents"
            )
        batch["noise"] = noise.astype(np.float32)
    return batch


def pictures(
    model: Model, image: np.ndarray, mask: np.ndarray | None, count: int, size: tuple[int, int]
) -> dict[str, np.ndarray]:
    """`image`, uint8 or latents, and `mask`, in the size that the model wants."""
    small = tuple(side // model.factor for side in size)
    if image.dtype != np.uint8:
        if image.shape != (count, *small, model.channels) or mask is not None or model.extra:
            raise ValueError(
                f"image is {image.dtype} of shape {image.shape}: expected uint8 pictures; or latents "
                f"{(count, *small, model.channels)} without a mask, where the model starts from them"
            )
        return {"image": image.astype(np.float32)}
    image = canvas.check_pictures(image, count)
    given = {"image": canvas.resize(image, *(small if model.extra == 3 else size))}
    if mask is not None:
        given["mask"] = canvas.resize_mask(canvas.check_mask(mask, image), *size)
    return given


def hints(model: Model, given: Sequence[np.ndarray], count: int, size: tuple[int, int]) -> dict[str, Any]:
    """`hints` for the ControlNets and `hint` for the T2I-adapter."""
    wanted = [*model.named("controlnet"), *model.named("adapter")]
    if len(given) != len(wanted):
        raise ValueError(
            f"{len(given)} hints were given: expected {len(wanted)}"
            + (f", for {', '.join(wanted)}" if wanted else "; load the model with a ControlNet or a T2I-adapter")
        )
    fitted = [canvas.resize(canvas.check_pictures(hint, count, "hints"), *size) for hint in given]
    last = {"hint": fitted.pop()} if "adapter" in model.nets else {}
    if last and model.nets["adapter"].in_channels == 1:
        last["hint"] = last["hint"].mean(-1, keepdims=True).round().astype(np.uint8)
    return {**last, **({"hints": tuple(fitted)} if fitted else {})}


def weights(model: Model, hints: Sequence[float], loras: Sequence[float], count: int) -> dict[str, np.ndarray]:
    """How much ControlNets, the T2I-adapter and `count` LoRAs count."""
    controls, adapter = len(model.named("controlnet")), "adapter" in model.nets
    hints = hints or (1.0,) * (controls + adapter)
    for what, given, expected in (("hint_weights", hints, controls + adapter), ("lora_weights", loras, count)):
        if len(given) != expected:
            raise ValueError(f"{what} has {len(given)} numbers: expected {expected}")
    return {
        "control": np.array(hints[:controls], np.float32),
        "adapter": np.array(hints[-1] if adapter else 0, np.float32),
        "lora": np.array(loras, np.float32),
    }


def told(
    model: Model,
    tokenizers: Mapping[str, ClipTokenizer],
    prompts: Sequence[str],
    keep: bool,
    chunks: int,
    size: tuple[int, int],
    score: float,
) -> dict[str, Any]:
    """What `program.conditions` takes as a prompt; without `keep` it stands for zeros."""
    count = len(prompts)
    made: dict[str, Any] = {"keep": np.full(count, keep, np.float32), "text": {}}
    for name, length in model.texts.items():
        tokenizer = tokenizers[name.replace("text_encoder", "tokenizer")]
        rows = [prompt_text.encode(tokenizer, text, chunks, length) for text in prompts]
        made["text"][name] = tuple(np.stack(x) for x in zip(*rows, strict=True))
    if model.sizes:
        last = (score,) if model.sizes == 5 else size
        made["sizes"] = np.tile(np.array([*size, 0, 0, *last], np.float32), (count, 1))
    return made


def for_each(given: str | Sequence[str] | None, count: int) -> list[str]:
    """Negative prompts, one for each picture.

    Raises:
      ValueError: if there are several, but not one for each.
    """
    words = [given or ""] if isinstance(given, str | None) else list(given)
    words = words * count if len(words) == 1 else words
    if len(words) != count:
        raise ValueError(f"there are {len(words)} negative prompts for {count} pictures: expected one, or one for each")
    return words
