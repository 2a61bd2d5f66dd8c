"""The pipeline of diffusion models, in pixels or latents, of our training or others', with every task they allow."""

import dataclasses
import functools
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxdiff import __version__
from jaxdiff.data import prompt as prompt_text
from jaxdiff.data.tokenizer_clip import ClipTokenizer
from jaxdiff.diffusion.schedule import Discrete
from jaxdiff.parallel import MeshSpec, param_shardings
from jaxdiff.parallel.spread import Spread
from jaxdiff.pipelines import canvas, inputs, plan
from jaxdiff.pipelines.guided import guided
from jaxdiff.pipelines.model import Model, make_model, renamed
from jaxdiff.pipelines.options import Options, merged, of_model
from jaxdiff.pipelines.program import FIRST, conditions, make_program, unit_noise, with_loras
from jaxdiff.pretrained import lora, scheduler
from jaxdiff.pretrained.ip_adapter import IPAdapter
from jaxdiff.pretrained.read import Bundle
from jaxdiff.pretrained.single_file import LOW_RES
from jaxdiff.typing import Denoise, Key, LearnedDenoise, Params


class DiffusionPipeline:
    """A diffusion model with what else a bundle has, an autoencoder, text encoders and so on, ready to sample.

    One program makes the pictures of all calls that give the same kinds of inputs, in the same number and size, with
    the same number of network calls: another prompt, seed, guidance, sampler, strength of a LoRA or of a ControlNet
    compiles nothing.

    Attributes:
      model: what is fixed when the program is compiled.
      params: weights by component; others of the same shapes may be put there, and compile nothing.
      guidance: the scale of calls that give none.
      low: side of the small pictures that it was trained to enlarge; None where nobody says it.
      clip: hash of the CLIP whose embeddings it draws; an empty text where nobody says it.
      Options: the class of what a call may be given.
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
          programs: a folder that keeps compiled programs, so that another start neither traces nor compiles; see
            `Spread`.

        Raises:
          ValueError: if the bundle has not what it takes, or its U-Net takes channels of no known meaning.
        """
        bundle = renamed(bundle)
        parts = bundle.components
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
        self.guidance = bundle.guidance
        own = bundle.index if bundle.native else {}
        self.low: int | None = own.get("low")
        self.clip: str = own.get("clip", "")
        self.Options = of_model(self.model, guidance=bundle.guidance, loras=len(loras), level=own.get("noise_level"))
        # the schedule's own text would leave numbers out
        numbers = [np.asarray(x).tobytes() for x in jax.tree.leaves(self.model.process.schedule)]
        identity = repr((__version__, self.model, numbers))
        self._run = Spread(make_program(self.model), spec, devices, programs=programs, identity=identity)
        if spec != "pmap":
            self.params = jax.device_put(self.params, param_shardings(self.params, self._run.mesh))

    def __call__(
        self,
        prompts: str | Sequence[str],
        *,
        key: Any,
        options: Any = None,
        latents: bool = False,
        on_device: bool = False,
        until: float | None = None,
        **fields: Any,
    ) -> Any:
        """Returns pictures, one for each prompt.

        Args:
          prompts: what to show, in words (parts may be weighted for CLIP, `(red hat:1.3)`) or as a class; a model that
            reads none is given empty ones. A single one serves any number of pictures.
          key: one key, split over the pictures, or keys [b].
          options: an `Options` of this pipeline; None: its defaults.
          latents: also return the latents.
          on_device: return what a later stage takes as its image instead, float32 in [-1, 1], and leave it on the
            devices; for models in pixels.
          until: log-SNR at which the walk ends, for a later stage; None: at data. See `plan.make`.
          fields: options by name, before those of `options`; `pipelines.options.Options` describes them.

        Returns:
          uint8 [b h w 3]; with `latents` that and float32 [b h w c].

        Raises:
          ValueError: if inputs do not fit each other or the model; nothing has been compiled then.
          FloatingPointError: if pictures are not finite.
        """
        if on_device and "vae" in self.model.nets:
            raise ValueError("this model's pictures are decoded from latents: a later stage takes those of its pixels")
        params, batch = self.arguments(prompts, key=key, options=options, until=until, **fields)
        out = self._run(params, batch, host=not on_device)
        _check_finite(self.model, out)
        if "flagged" in out and out["flagged"].any():
            which = ", ".join(map(str, np.flatnonzero(out["flagged"])))
            warnings.warn(f"the safety checker has blackened pictures {which}", stacklevel=2)
        if on_device:
            return out["latents"]
        return (out["pixels"], out["latents"]) if latents else out["pixels"]

    def arguments(
        self,
        prompts: str | Sequence[str],
        *,
        key: Any,
        options: Any = None,
        until: float | None = None,
        **fields: Any,
    ) -> Any:
        """Returns what the compiled program of such a call is given: (weights and numbers, one row for each picture).

        Raises:
          ValueError: if inputs do not fit each other or the model.
        """
        model, o = self.model, self.options(options, **fields)
        hints = [o.hints] if isinstance(o.hints, np.ndarray) else list(o.hints)
        prompts = inputs.prompts(prompts)
        keys = inputs.check_key(key)
        if len(prompts) == 1:
            several = keys if keys.ndim else None
            prompts *= max(
                len(x)
                for x in (o.image, o.picture, o.depth, o.embed, o.init_noise, several, *hints, prompts)
                if x is not None
            )
        count = len(prompts)
        if keys.ndim and len(keys) != count:
            raise ValueError(f"there are {len(keys)} keys for {count} pictures: pass one, or one for each")
        size = self.size_of(o)
        batch: dict[str, Any] = {"keys": keys if keys.ndim else jax.random.split(keys, count)}
        batch |= inputs.first_noise(model, o.init_noise, count, size)
        batch |= inputs.hints(model, hints, count, size)
        if o.image is not None:
            batch |= inputs.pictures(model, o.image, o.mask, count, size)
            batch |= inputs.original(o.original, o.mask, count, size)
        if o.depth is not None:
            batch |= inputs.depth(model, o.depth, count, size)
        if o.picture is not None:
            batch["picture"] = canvas.check_pictures(o.picture, count, "picture")
            batch["picture_weight"] = np.full(count, o.picture_weight, np.float32)
        if o.embed is not None:
            batch |= inputs.embeds(model, o.embed, o.no_embed, count)
        if model.steered:
            encode = functools.partial(inputs.encoded, model, self.tokenizers, chunks=o.chunks, size=size)
            batch["prompt"] = encode(prompts, True, score=inputs.GOOD)
            if o.guidance is not None and not model.embeds_guidance:
                # where nothing is named to keep away from, SDXL takes zeros and not an empty text
                zeros = o.negative is None and self.index.get("force_zeros_for_empty_prompt", len(model.texts) > 1)
                batch["negative"] = encode(inputs.for_each(o.negative, count), not zeros, score=inputs.BAD)
        self._warn(prompts, o.chunks)
        low = (1.0, 0.0)
        if (model.enlarges and not model.picture) or model.noises:
            batch["level"] = np.full(count, o.noise_level, np.int32)
            low = (1.0, 0.0) if o.noisy else self.level(o.noise_level)
        first = o.original if model.enlarges else o.image
        start = "noise" if first is None or model.edits else "picture"
        lora_weights = self.lora_weights if o.lora_weights is None else o.lora_weights
        numbers = plan.make(
            model.process,
            self.schedulers.get("scheduler"),
            steps=o.steps,
            sampler=o.sampler,
            grid=o.grid,
            eta=o.eta,
            strength=o.strength,
            part=(o.denoising_start, o.denoising_end),
            until=until,
            start="hole" if o.mask is not None else start,
            weights=inputs.weights(model, o.hint_weights, lora_weights, len(self.lora_weights)),
            low=low,
            guidance=1.0 if o.guidance is None else o.guidance,
            rescale=o.rescale,
            picture_guidance=o.picture_guidance,
        )
        multilingual = "MultilingualCLIP" in model.kinds.values()  # Kandinsky 2.1
        if start == "picture" and multilingual and o.mask is None and o.strength is not None:
            signal, noise = plan.kandinsky_start(o.strength)
            numbers = numbers._replace(signal=signal, noise=noise)
        return (self.params, numbers), batch

    def options(self, given: Any = None, **fields: Any) -> Options:
        """Returns the options that a call with these runs with: checked, what is left open filled in.

        Args:
          given: an `Options` of this pipeline; None: its defaults.
          fields: by name, before those of `given`.

        Raises:
          ValueError: for options that do not fit each other or the model.
        """
        o = merged(self.Options, self.guidance, given, fields)
        inputs.check_task(self.model, o)
        starts = (o.original if self.model.enlarges else o.image) is not None and not self.model.edits
        apart = o.sampler == "ddim_inverse" or o.denoising_start is not None or o.denoising_end is not None
        if starts and o.strength is None and not apart:
            o = dataclasses.replace(o, strength=0.8 if o.mask is None else 1.0)
        return o

    def settings(self, options: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Returns the size and the options of a call with these, as far as they are numbers or names, as one stage."""
        defaults = {f.name: f.default for f in dataclasses.fields(self.Options)}
        known = {name: value for name, value in {**defaults, **options}.items() if isinstance(value, int | float | str)}
        off = {"guidance": 1.0} if "guidance" in options and options["guidance"] is None else {}
        return [{"size": list(self.size), **known, **off}]

    def noise(self, keys: Key, height: int | None = None, width: int | None = None) -> Float[Array, "b h w c"]:
        """Returns the noise that pictures of this size with these keys [b] start from."""
        size = inputs.size(self.model, self._own, None, None, height, width)
        h, w = (side // self.model.factor for side in size)
        return unit_noise(keys, FIRST, (h, w, self.model.channels))

    @property
    def size(self) -> tuple[int, int]:
        """Returns height and width of pictures for which no size is asked."""
        height, width = (self._own, self._own) if isinstance(self._own, int) else self._own
        return height * self.model.factor, width * self.model.factor

    def size_of(self, options: Options) -> tuple[int, int]:
        """Returns height and width of the pictures that a call with these options makes.

        Raises:
          ValueError: if a side is too long, or noise or image have no size.
        """
        o = options
        return inputs.size(self.model, self._own, o.image, o.init_noise, o.height, o.width)

    def inputs(self, prompts: Sequence[str]) -> dict[str, Any]:
        """Returns what `denoiser` takes as these prompts.

        Raises:
          ValueError: for a class that the model does not know.
        """
        if not self.model.reads:
            return {}
        score = inputs.GOOD
        encoded = inputs.encoded(self.model, self.tokenizers, prompts, True, chunks=1, size=self.size, score=score)
        return {"prompt": encoded}

    def denoiser(self, params: Params, batch: Any) -> Denoise | LearnedDenoise:
        """Returns the model as it was trained, neither guided nor clipped: for other programs, such as a likelihood's.

        Args:
          params: this pipeline's, as arguments of that program.
          batch: what `inputs` gives, one row for each picture.
        """
        params = with_loras(params, jnp.asarray(self.lora_weights, jnp.float32))
        return guided(self.model, params, conditions(self.model, params, {}, batch, {}), {})

    def cut(self, prompt: str, chunks: int = 1) -> str:
        """Returns the end of a prompt that is too long for the model and is not seen by it; '' if all is."""
        unseen = []
        for name, length in self.model.texts.items():
            tokenizer = self.tokenizers[name.replace("text_encoder", "tokenizer")]
            if not isinstance(tokenizer, ClipTokenizer):
                unseen.append(tokenizer.cut(inputs.plain(tokenizer, prompt), length)[1])
            else:
                unseen.append(prompt_text.cut(tokenizer, prompt, chunks, length))
        return max(unseen, key=len, default="")

    def _warn(self, prompts: Sequence[str], chunks: int) -> None:
        """Says what of the prompts the model does not see."""
        if not self.model.reads and not self.model.embed and any(prompts):
            warnings.warn("this model reads no prompts: they say how many pictures to make, and no more", stacklevel=3)
        inputs.warn_of_cut(prompts, lambda text: self.cut(text, chunks))

    def calls(self, sampler: plan.Sampler, steps: int) -> int:
        """Counts the network calls that so many steps of a sampler take.

        Raises:
          ValueError: for a sampler that does not exist, or cannot make these steps of this model.
        """
        config = self.schedulers.get("scheduler")
        return plan.make(self.model.process, config, steps=steps, sampler=sampler, weights={}).table.calls

    def compiled(self) -> int:
        """Counts the programs that have been compiled for this pipeline."""
        return self._run.compiled()

    def level(self, level: int) -> tuple[float, float]:
        """Returns alpha and sigma of an upscaler's noise level.

        Raises:
          ValueError: for a level that it was not trained on.
        """
        config = self.schedulers.get("image_noising_scheduler", self.schedulers.get("low_res_scheduler", LOW_RES))
        schedule = scheduler.process(config).schedule
        assert isinstance(schedule, Discrete)
        limit = schedule.steps if "vae" not in self.model.nets or self.model.noises else 350
        most = min(self.index.get("max_noise_level", limit), schedule.steps - 1)
        if not 0 <= level <= most:
            raise ValueError(f"noise_level is {level}: this model knows 0 to {most}")
        t = np.array([(level + 1) / schedule.steps])
        return float(schedule.alpha(t)[0]), float(schedule.sigma(t)[0])


def _check_finite(model: Model, out: Mapping[str, Any]) -> None:
    """Refuses pictures that are not finite, and says what helps."""
    if not np.asarray(out["bad"]).any():
        return
    bad = np.flatnonzero(np.asarray(out["bad"]))
    which = ", ".join(map(str, bad[:10])) + (f" and {len(bad) - 10} more" if len(bad) > 10 else "")
    if "vae" in model.nets and np.isfinite(out["latents"]).all():
        net = model.nets["vae"]
        dtype = getattr(net, "dtype", "float32")
        cause = f"the decoder overflows in {dtype}" if dtype != "float32" else "the decoder's weights may be damaged"
        raise FloatingPointError(
            f"pictures {which} are not finite though their latents are: {cause}"
            + ("; load the model with decode_dtype='float32'" if dtype != "float32" else "; get its file again")
        )
    dtype = model.nets["unet"].dtype
    help = "dtype='bfloat16' or 'float32', " if dtype == "float16" else ""
    what = "latents" if "vae" in model.nets else "values"
    raise FloatingPointError(
        f"the {what} of pictures {which} are not finite, computed in {dtype}: use {help}a lower guidance, or another "
        "sampler; or the weights are damaged"
    )
