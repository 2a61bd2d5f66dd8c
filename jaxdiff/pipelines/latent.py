"""Stable Diffusion and its kin: a pipeline from a model directory of diffusers, for every task its networks allow."""

import dataclasses
import functools
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jaxtyping import Array, Float

from jaxdiff import __version__
from jaxdiff.data import prompt as prompt_text
from jaxdiff.diffusion.schedule import Discrete
from jaxdiff.parallel import MeshSpec, param_shardings
from jaxdiff.parallel.spread import Spread
from jaxdiff.pipelines import canvas, inputs, plan
from jaxdiff.pipelines.model import make_model
from jaxdiff.pipelines.program import FIRST, make_program, unit_noise
from jaxdiff.pretrained import lora, scheduler
from jaxdiff.pretrained.ip_adapter import IPAdapter
from jaxdiff.pretrained.read import Bundle
from jaxdiff.pretrained.single_file import LOW_RES
from jaxdiff.typing import Key


class LatentPipeline:
    """A diffusion model with an autoencoder, text encoders and what else a directory has, ready to sample.

    One program makes the pictures of all calls that give the same kinds of inputs, in the same number and size, with
    the same number of network calls: another prompt, seed, guidance, sampler, strength of a LoRA or of a ControlNet
    compiles nothing.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        loras: Sequence[lora.Lora] = (),
        lora_weights: Sequence[float] = (),
        ip_adapter: IPAdapter | None = None,
        clip_skip: int = 0,
        decode: Literal["whole", "sliced", "tiled"] = "whole",
        safety: bool = False,
        spec: MeshSpec | Literal["pmap"] = MeshSpec(),
        devices: Sequence[jax.Device] | None = None,
        programs: Path | None = None,
    ):
        """Takes a model and compiles nothing yet.

        Args:
          bundle: the networks; components whose names begin with `controlnet` are used in the order of their names.
          loras: kept apart from the weights, so that each call can weigh them.
          lora_weights: what calls use that say nothing else; 1 for each if empty.
          ip_adapter: takes a picture beside the prompt; `image_encoder` must be in the bundle.
          clip_skip: text states are taken so many blocks earlier than usual.
          decode: `sliced` decodes one picture after another, `tiled` squares of a picture: less memory.
          safety: whether the safety checker blackens pictures.
          spec: how devices share a batch.
          devices: which; None: all.
          programs: a folder that keeps traced programs, so that another start traces nothing (see `Spread`); empty it
            after a change to the library's code.

        Raises:
          ValueError: if the bundle has not what it takes, or its U-Net takes channels of no known meaning.
        """
        # the oldest unconditional models call it vqvae
        parts = {"vae" if name == "vqvae" else name: part for name, part in bundle.components.items()}
        bundle = dataclasses.replace(bundle, components=parts)
        if safety and "safety_checker" not in parts:
            raise ValueError(f"{bundle.kind} has no safety_checker: put one into its directory, or leave safety off")
        if ip_adapter and "image_encoder" not in parts:
            raise ValueError("an IP-adapter needs CLIP's image encoder: pass image_encoder, the directory of one")
        tokens = ip_adapter.tokens if ip_adapter else None
        self.model = make_model(bundle, clip_skip=clip_skip, picture_tokens=tokens, decode=decode, safety=safety)
        self.index, self.schedulers, self.tokenizers = bundle.index, bundle.schedulers, bundle.tokenizers
        self.params: dict[str, Any] = {name: part.params for name, part in parts.items()}
        self.params["lora"] = tuple(loras)
        self.lora_weights = tuple(lora_weights) or (1.0,) * len(loras)
        if not safety:
            self.params.pop("safety_checker", None)
        if ip_adapter:
            self.params["unet"] = ip_adapter.apply_to(self.params["unet"])
            self.params["picture_tokens"] = ip_adapter.projection
        self._own = parts["unet"].json.get("sample_size") or 64
        # the schedule's own text would leave numbers out
        identity = repr((__version__, self.model, self.schedulers))
        self._run = Spread(make_program(self.model), spec, devices, programs=programs, identity=identity)
        if spec != "pmap":
            self.params = jax.device_put(self.params, param_shardings(self.params, self._run.mesh))

    def __call__(
        self,
        prompts: str | Sequence[str],
        *,
        key: Key,
        steps: int = 20,
        sampler: plan.Sampler = None,
        grid: str | None = None,
        guidance: float | None = 7.5,
        rescale: float = 0.0,
        negative: str | Sequence[str] | None = None,
        chunks: int = 1,
        eta: float | None = None,
        init_noise: np.ndarray | None = None,
        height: int | None = None,
        width: int | None = None,
        image: np.ndarray | None = None,
        mask: np.ndarray | None = None,
        strength: float | None = None,
        picture_guidance: float = 1.5,
        noise_level: int = 20,
        hints: np.ndarray | Sequence[np.ndarray] = (),
        hint_weights: Sequence[float] = (),
        picture: np.ndarray | None = None,
        picture_weight: float = 1.0,
        lora_weights: Sequence[float] | None = None,
        latents: bool = False,
    ) -> Any:
        """Pictures, one for each prompt.

        Args:
          prompts: what to show; parts may be weighted, `(red hat:1.3)`. A single one serves any number of pictures.
          key: one key, split over the pictures, or keys [b].
          steps: of the sampler.
          sampler: a name in `sampling.SAMPLERS`, a scheduler_config.json of diffusers, or None: the model's own.
          grid: the name of a grid in `sampling.grid.GRIDS`; None: the sampler's own.
          guidance: 1 follows the model's own distribution, more follows the prompt more closely. None: no guidance, at
            half the work.
          rescale: from 0 to 1, how far the guided output is held to the standard deviation of the unguided.
          negative: what to keep away from; one for all, or one for each.
          chunks: of 75 tokens, how much of a long prompt is read.
          eta: noise added at each step, where the sampler has it: 0 none, 1 as DDPM.
          init_noise: [b h w c] unit Gaussian in the size of the latents, instead of noise from the keys.
          height: of the pictures; None: that of `image`, or what the model was trained on.
          width: the same.
          image: uint8 [b h w 3], to change, fill, edit or enlarge, whatever the model does; or latents [b h w c].
          mask: [b h w 1], 1 where new content goes.
          strength: how much of `image` is changed, in (0, 1]; None: 0.8, and with a mask 1.
          picture_guidance: how closely an edited picture keeps to `image`.
          noise_level: of the noise that an upscaler adds to `image`, so that it may invent details.
          hints: uint8 [b h w 3] for each ControlNet, and last for the T2I-adapter.
          hint_weights: how much each counts; 1 for each if empty.
          picture: uint8 [b h w 3] for the IP-adapter, or of which to make variations.
          picture_weight: how much it counts for an IP-adapter.
          lora_weights: how much each LoRA counts; None: as the pipeline was made.
          latents: also return the latents.

        Returns:
          uint8 [b h w 3]; with `latents` that and float32 [b h w c].

        Raises:
          ValueError: if inputs do not fit each other or the model; nothing has been compiled then.
          FloatingPointError: if pictures are not finite.
        """
        model, given = self.model, [hints] if isinstance(hints, np.ndarray) else list(hints)
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        if not prompts:
            raise ValueError("no prompt was given: pass at least one")
        inputs.check_task(model, image, mask, strength, picture, init_noise)
        if len(prompts) == 1:
            keys = key if key.ndim else None
            prompts *= max(len(x) for x in (image, picture, init_noise, keys, *given, prompts) if x is not None)
        count = len(prompts)
        if key.ndim and len(key) != count:
            raise ValueError(f"there are {len(key)} keys for {count} pictures: pass one, or one for each")
        size = inputs.size(model, self._own, image, init_noise, height, width)
        batch: dict[str, Any] = {"keys": key if key.ndim else jax.random.split(key, count)}
        batch |= inputs.first_noise(model, init_noise, count, size)
        batch |= inputs.hints(model, given, count, size)
        if image is not None:
            batch |= inputs.pictures(model, image, mask, count, size)
        if picture is not None:
            batch["picture"] = canvas.check_pictures(picture, count, "picture")
            batch["picture_weight"] = np.full(count, picture_weight, np.float32)
        if model.texts or model.looks:
            tell = functools.partial(inputs.told, model, self.tokenizers, chunks=chunks, size=size)
            batch["prompt"] = tell(prompts, True, score=inputs.GOOD)
            if guidance is not None:
                # where nothing is named to keep away from, SDXL is told zeros and not an empty text
                zeros = negative is None and self.index.get("force_zeros_for_empty_prompt", len(model.texts) > 1)
                batch["negative"] = tell(inputs.for_each(negative, count), not zeros, score=inputs.BAD)
        for text in sorted(set(prompts)):
            if unseen := self.cut(text, chunks):
                warnings.warn(f"the prompt is too long for this model; it does not see {unseen!r}", stacklevel=2)
        low = (1.0, 0.0)
        if model.extra == 3:
            batch["level"] = np.full(count, noise_level, np.int32)
            low = self._low(noise_level)
        start = "noise" if image is None or model.extra in (3, model.channels) else "picture"
        if start == "picture" and strength is None and sampler != "ddim_inverse":
            strength = 0.8 if mask is None else 1.0
        made = plan.make(
            model.process,
            self.schedulers["scheduler"],
            steps=steps,
            sampler=sampler,
            grid=grid,
            eta=eta,
            strength=strength,
            start="hole" if mask is not None else start,
            weights=inputs.weights(
                model, hint_weights, self.lora_weights if lora_weights is None else lora_weights, len(self.lora_weights)
            ),
            low=low,
            guidance=guidance or 0.0,
            rescale=rescale,
            picture_guidance=picture_guidance,
        )
        out = self._run((self.params, made), batch)
        _check_finite(out)
        if "flagged" in out and out["flagged"].any():
            which = ", ".join(map(str, np.flatnonzero(out["flagged"])))
            warnings.warn(f"the safety checker has blackened pictures {which}", stacklevel=2)
        return (out["pixels"], out["latents"]) if latents else out["pixels"]

    def noise(self, keys: Key, height: int | None = None, width: int | None = None) -> Float[Array, "b h w c"]:
        """The noise that pictures of this size with these keys [b] start from."""
        size = inputs.size(self.model, self._own, None, None, height, width)
        h, w = (side // self.model.factor for side in size)
        return unit_noise(keys, FIRST, (h, w, self.model.channels))

    def cut(self, prompt: str, chunks: int = 1) -> str:
        """The end of a prompt that is too long for the model and is not seen by it; '' if all is."""
        unseen = [
            prompt_text.cut(self.tokenizers[name.replace("text_encoder", "tokenizer")], prompt, chunks, length)
            for name, length in self.model.texts.items()
        ]
        return max(unseen, key=len, default="")

    def compiled(self) -> int:
        """How many programs have been compiled for this pipeline."""
        return self._run.compiled()

    def _low(self, level: int) -> tuple[float, float]:
        """Alpha and sigma of an upscaler's noise level."""
        schedule = scheduler.process(self.schedulers.get("low_res_scheduler", LOW_RES)).schedule
        assert isinstance(schedule, Discrete)
        most = min(self.index.get("max_noise_level", 350), schedule.steps - 1)
        if not 0 <= level <= most:
            raise ValueError(f"noise_level is {level}: this model knows 0 to {most}")
        t = np.array([(level + 1) / schedule.steps])
        return float(schedule.alpha(t)[0]), float(schedule.sigma(t)[0])


def _check_finite(out: dict[str, np.ndarray]) -> None:
    """Refuses pictures that are not finite, and says what helps."""
    if not out["bad"].any():
        return
    which = ", ".join(map(str, np.flatnonzero(out["bad"])))
    if np.isfinite(out["latents"]).all():
        raise FloatingPointError(
            f"pictures {which} are not finite though their latents are: the decoder overflows in half precision; load "
            "the model with decode_dtype='float32'"
        )
    raise FloatingPointError(
        f"the latents of pictures {which} are not finite: use dtype='bfloat16' or 'float32' instead of 'float16', a "
        "lower guidance, or another sampler"
    )
