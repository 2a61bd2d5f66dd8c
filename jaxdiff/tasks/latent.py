"""Pictures from text, a class, another picture, or nothing: diffusion in the latents of an autoencoder.

Data are pictures, which the step encodes, or a directory of `jaxdiff latents`, where that was done once; both are
trained on draws of the encoder's Gaussian, anew each time, times a scale that gives them unit deviation.

A run keeps the networks that it stands on, so that its directory is a model:

    WORKDIR/autoencoder/                  as diffusers writes it; its scaling_factor is the scale that was measured
    WORKDIR/text_encoder/, tokenizer/     where captions are read by a frozen CLIP

Source: Rombach et al. 2022, arXiv 2112.10752, sections 3.2 and 3.3; appendix G (the scale).
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxdiff.data import hints
from jaxdiff.data.config import is_latents
from jaxdiff.data.latents import LatentSource
from jaxdiff.data.source import DataConfig, Example, Source, names_of
from jaxdiff.data.tokenizer import BytePair
from jaxdiff.models.unet import UNetConfig
from jaxdiff.parallel.spread import Spread
from jaxdiff.pipelines import encode, first_stage
from jaxdiff.pipelines.bundles import diffusion_bundle
from jaxdiff.pretrained.components import family
from jaxdiff.pretrained.read import Bundle, Component, read_component
from jaxdiff.pretrained.single_file import KINDS, PRESETS
from jaxdiff.pretrained.write import write_component
from jaxdiff.tasks import frozen_text, picture, saved
from jaxdiff.tasks import teacher as teachers
from jaxdiff.training import OptimizerConfig, Variables
from jaxdiff.training.workdir import by_first
from jaxdiff.typing import Batch, Cond, Key, Params

_MEASURED = 256
"""Pictures that the scale is measured on where they are encoded in the step."""


class Assets(NamedTuple):
    """Holds what a model is beside its numbers and weights.

    Attributes:
      size: side of the pictures.
      folder: folder of the run.
      vae: the autoencoder, without its weights.
      vocabulary: vocabulary of a text encoder that is trained.
      labels: names of the classes.
      clip: the frozen text encoder, without its weights, and its tokenizer.
      maps: files of the semantic maps, by the names of their pictures.
      shown: uint8 [n i j 3] pictures in the size of latents, for previews of models that a picture steers.
    """

    size: int
    folder: Path
    vae: Component
    vocabulary: BytePair | None = None
    labels: tuple[str, ...] = ()
    clip: encode.Text | None = None
    maps: Mapping[str, Path] | None = None
    shown: np.ndarray | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(picture.Config):
    """Diffusion on latents.

    Attributes:
      picture: what else does, as three channels beside the latents: the picture in their size (low_resolution), the
        same blurred, a map whose colours say what is where (semantic_map), or none.
      maps: folder of the semantic maps, each a file with the name of its picture; scaled by the nearest pixel.
      blur: deviation of the Gaussian, in latents.
      autoencoder: a run of `jaxdiff train`, or a directory, whose autoencoder a new run takes; None: that of the
        latents, where data are some.
      text_encoder: where a frozen text encoder comes from; None: that of the latents.
      scale: scale of the latents; None: one over their standard deviation, measured.
    """

    picture: Literal["none", "low_resolution", "blurred", "semantic_map"] = "none"
    maps: Path | None = None
    blur: float = 2.0
    autoencoder: Path | None = None
    scale: float | None = None

    def check(self, data: DataConfig, optimizer: OptimizerConfig) -> None:
        """Refuses numbers that do not fit each other or the data."""
        super().check(data, optimizer)
        own = [name for name in ("autoencoder", "text_encoder", "scale") if getattr(self, name) is not None]
        if self.teacher is not None and own:
            raise ValueError(f"task.{own[0]} is given, and a student has its teacher's: leave it out")
        if self.process.clip is not None:
            raise ValueError(
                f"task.process.clip is {self.process.clip}: latents have no such limits, so set it to None"
            )
        if (self.picture == "semantic_map") != (self.maps is not None):
            raise ValueError(
                f"task.picture is {self.picture!r} and task.maps is {self.maps}: semantic maps, and nothing else, need "
                "the folder where they lie"
            )
        if self.maps and (data.flip or is_latents(data.name)):
            which = "data.flip mirrors pictures alone" if data.flip else f"{data.name} are latents, which have no names"
            raise ValueError(f"task.maps belong to pictures as they are, and {which}: leave it")
        for name, value in (("scale", self.scale), ("blur", self.blur)):
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"task.{name} is {value}: expected a number above 0")

    def _sides(self, data: DataConfig) -> tuple[int, ...]:
        return ()  # known when the autoencoder is

    def _channels(self) -> int:
        out: int = getattr(self.net, "out_channels", 0)
        return out // self.process.out_channels(1)

    def assets(self, folder: Path, data: DataConfig, source: Source | None = None, *, new: bool = False) -> Any:
        """Reads what a run keeps; a new one gets it from the paths of the config, or from the latents it trains on."""
        plain = super().assets(folder, data, source, new=new)
        of = source if isinstance(source, LatentSource) else None
        if new and source is not None:
            self._keep(folder, data, source)
        if not (folder / "autoencoder").is_dir():
            raise FileNotFoundError(
                f"{folder / 'autoencoder'} is missing, and the weights are of no use without it: put it back"
                + (f" (the run began with {self.autoencoder})" if self.autoencoder else "")
            )
        vae = first_stage.outline(folder / "autoencoder")
        self._check_net(vae, of.plan.shapes if of else ((data.size, data.size),))
        if of:
            self._check_latents(of, folder, data)
        assets = Assets(data.size, folder, vae, plain.vocabulary, plain.labels, plain.clip)
        if source is not None and self.maps:
            assets = assets._replace(maps=hints.beside(self.maps, names_of(source), "task.maps"))
        if source is not None and self.picture != "none" and self.preview.prompts:
            assets = assets._replace(shown=self._shown(source, vae, assets))
        return assets

    def described(self, data: DataConfig) -> tuple[Any, Params, Batch] | None:
        """Takes Stable Diffusion 1's autoencoder and CLIP where none are named, and latents that are cached."""
        if self.autoencoder or self.teacher or is_latents(data.name) or self._channels() != 4:
            return None
        parts, clip = {}, self.condition == "clip"
        for name, of in (("autoencoder", "vae"), ("text_encoder", "text_encoder"))[: 1 + clip]:
            json = {"vocab_size": 49408, **PRESETS["sd1"][of]} if of == "text_encoder" else PRESETS["sd1"][of]
            config = family(KINDS[of]).config(json)
            parts[name] = Component(KINDS[of], json, config, family(KINDS[of]).shapes(config, json))
        words: Any = _Silent()  # in the place of either tokenizer
        vae, loaded = parts["autoencoder"], {name: part.params for name, part in parts.items()}
        side = data.size // first_stage.factor(vae)
        row = {"moments": jax.ShapeDtypeStruct((1, side, side, first_stage.channels(vae)[0]), jnp.float16)}
        if self.picture != "none":
            row["small"] = jax.ShapeDtypeStruct((1, side, side, 3), jnp.uint8)
        text = encode.Text(parts["text_encoder"], words) if clip else None
        if text:
            net = text.encoder.config
            row["context"] = jax.ShapeDtypeStruct((1, net.length, net.width), jnp.float16)
        if self.condition == "text":
            row["tokens"] = jax.ShapeDtypeStruct((1, self.text.length), jnp.int32)
        if self.condition == "class":
            row["label"] = jax.ShapeDtypeStruct((1,), jnp.int32)
        return Assets(data.size, Path(), vae, words, (), text), loaded, row

    def _keep(self, folder: Path, data: DataConfig, source: Source) -> None:
        """Copies the networks into a new run, and measures the scale; all processes check, and the first one writes."""
        of = source if isinstance(source, LatentSource) else None
        taught = self.teacher and teachers.read(self.teacher).folder
        path = taught / "autoencoder" if taught else self.autoencoder or (of.folder if of else None)
        if path is None:
            raise ValueError(
                "task.autoencoder is not given: expected a run of `jaxdiff train` or a directory; or give latents as "
                "data.name, which hold theirs"
            )
        if not (folder / "autoencoder").is_dir():
            vae = saved.read_autoencoder(path)
            self._check_net(vae, of.plan.shapes if of else ((data.size, data.size),))
            if of and (own := first_stage.fingerprint(vae)) != of.plan.autoencoder:
                raise ValueError(_other(path, own, of, of.plan.autoencoder))
            if not taught:
                deviation = 1 / self.scale if self.scale else of.manifest.deviation if of else _deviation(vae, source)
                if not 0 < deviation < math.inf:
                    raise ValueError(f"{path} gives latents of standard deviation {deviation}: it was never trained")
                vae = first_stage.with_scale(vae, 1 / deviation)
            write = lambda: first_stage.write_once(folder / "autoencoder", lambda at: write_component(vae, at))
            by_first(write)

    def _text_encoder(self, source: Source) -> Path | None:
        if self.teacher or self.text_encoder or not isinstance(source, LatentSource) or not source.plan.text_encoder:
            return super()._text_encoder(source)
        return source.folder

    def _check_latents(self, of: LatentSource, folder: Path, data: DataConfig) -> None:
        """Refuses latents and text states of other networks than the run's."""
        if data.articles and self.condition == "clip" and of.plan.text_encoder:
            raise ValueError(f"data.articles is True, and {of.folder} has the states of captions as they are: leave it")
        pairs = [("autoencoder", of.plan.autoencoder)]
        if self.condition == "clip" and of.plan.text_encoder:
            pairs.append(("text_encoder", of.plan.text_encoder))
        for name, expected in pairs:
            if (own := first_stage.fingerprint(read_component(folder / name))) != expected:
                raise ValueError(_other(folder / name, own, of, expected))

    def _check_net(self, vae: Component, shapes: Sequence[tuple[int, int]]) -> None:
        factor, channels = first_stage.factor(vae), first_stage.channels(vae)[1]
        if self._channels() != channels:
            raise ValueError(
                f"task.net.out_channels is {getattr(self.net, 'out_channels', 0)}, and the latents have {channels} "
                f"channels: set it to {self.process.out_channels(channels)}"
            )
        for sides in shapes:
            if any(side % factor for side in sides):
                raise ValueError(f"pictures of {sides[0]}x{sides[1]}: the autoencoder wants multiples of {factor}")
            self.net.check(*(side // factor for side in sides))

    def _map(self, assets: Assets, one: Any) -> np.ndarray:
        """Returns the semantic map of an example, uint8 [i j 3] in the size of latents; black where there is none."""
        side = assets.size // first_stage.factor(assets.vae)
        if "name" not in one or assets.maps is None:
            return np.zeros((side, side, 3), np.uint8)
        return hints.read_beside(assets.maps, one["name"], side, nearest=True)

    def _shown(self, source: Any, vae: Component, assets: Assets) -> np.ndarray:
        rows = [source[i] for i in range(min(len(self.preview.prompts), len(source)))]
        if self.maps:
            return np.stack([self._map(assets, one) for one in rows])
        return np.stack([one["small"][0] if "small" in one else _reduced(one["image"], vae) for one in rows])

    def _kept(self, assets: Any, place: Any) -> Params:
        vae = saved.load_part(assets.folder / "autoencoder", "autoencoder", place)
        return {**vae, **super()._kept(assets, place)}

    def _row(self, assets: Any, one: Example, rng: np.random.Generator) -> dict[str, np.ndarray]:
        row: Any = one
        if "moments" not in row:
            return {"image": row["image"], **({"small": self._map(assets, one)} if self.maps else {})}
        which = int(rng.integers(len(row["moments"])))
        return {name: row[name][which] for name in ("moments", *["small"] * (self.picture != "none"))}

    def _teller(self, assets: Any) -> Any:
        plain = super()._teller(assets)

        def tell(one: Any) -> dict[str, np.ndarray]:
            return {"context": one["context"]} if self.condition == "clip" and "context" in one else plain(one)

        return tell

    def _x0(self, assets: Any, frozen: Params, batch: Batch, keys: Key) -> Float[Array, "b i j z"]:
        moments = batch.get("moments")
        if moments is None:
            moments = first_stage.moments(assets.vae, frozen["autoencoder"], batch["image"])
        return first_stage.latents(assets.vae, jax.lax.stop_gradient(moments), keys)

    def _away(self, assets: Any, frozen: Params, batch: Batch) -> dict[str, Any]:
        if "context" not in batch:
            return super()._away(assets, frozen, batch)
        return {"context": frozen_text.states(assets.clip, frozen, frozen_text.tokens(assets.clip, "")[None])}

    def _cond(self, assets: Any, params: Params, frozen: Params, batch: Batch) -> Cond:
        if "context" in batch:
            cond = Cond(context=batch["context"].astype(jnp.float32))
        else:
            cond = super()._cond(assets, params, frozen, batch)
        if self.picture == "none":
            return cond
        small = batch.get("small")
        if small is None:
            small = jnp.round(first_stage.reduced(batch["image"], first_stage.factor(assets.vae)))
        small = small.astype(jnp.float32) / 127.5 - 1
        return dataclasses.replace(cond, image=blurred(small, self.blur) if self.picture == "blurred" else small)

    def bundle(self, assets: Any, weights: Variables) -> Bundle:
        """Returns the U-Net, the autoencoder, the text encoder and the process, as every pipeline takes them."""
        assert isinstance(self.net, UNetConfig)
        bundle = diffusion_bundle(
            self.net,
            weights.params,
            process=self._sampled(weights.params),
            size=assets.size // first_stage.factor(assets.vae),
            text=self.text if self.condition == "text" else None,
            vocabulary=assets.vocabulary,
            labels=assets.labels,
            vae=dataclasses.replace(assets.vae, params=weights.frozen["autoencoder"]),
        )
        if self.condition == "clip":
            frozen_text.add(bundle, assets.clip, weights)
        return dataclasses.replace(bundle, index={"picture": self.picture} if self.picture != "none" else {})

    def _preview_inputs(self, assets: Any) -> dict[str, Any]:
        if self.picture == "none":
            return {}
        return {"image": assets.shown, "height": assets.size, "width": assets.size}


class _Silent:
    """A tokenizer that says nothing."""

    def encode(self, text: str, length: int) -> np.ndarray:
        """Returns tokens [length]."""
        return np.zeros(length, np.int32)


def _other(path: Path, own: str, of: LatentSource, expected: str) -> str:
    return (
        f"{of.folder} was made with another network than {path} (hash {expected[:12]}, not {own[:12]}): make latents "
        "with this one, or take theirs"
    )


def _reduced(image: np.ndarray, vae: Component) -> np.ndarray:
    return np.asarray(jnp.round(first_stage.reduced(jnp.asarray(image[None]), first_stage.factor(vae)))).astype(
        np.uint8
    )[0]


def _deviation(vae: Component, source: Any) -> float:
    """Measures the standard deviation of the latents of some pictures, evenly spread over the data."""
    run = Spread(
        lambda params, batch: first_stage.moments(vae, params, batch["image"]),
        devices=jax.local_devices()[:1],
        multiple=16,
    )
    chosen = np.unique(np.linspace(0, len(source) - 1, min(_MEASURED, len(source))).round().astype(int))
    parts = np.array_split(chosen, math.ceil(len(chosen) / 16))
    images = (np.stack([source[i]["image"] for i in part.tolist()]) for part in parts)
    moments = np.concatenate([run(vae.params, {"image": image}) for image in images]).astype(np.float64)
    mean, log_var = (
        np.split(moments, 2, -1) if vae.kind == "AutoencoderKL" else (moments, np.full(moments.shape, -np.inf))
    )
    return float(np.sqrt((mean**2 + np.exp(log_var)).mean() - mean.mean() ** 2))


def blurred(x: Float[Array, "b i j c"], deviation: float) -> Float[Array, "b i j c"]:
    """Blurs pictures by a Gaussian of this deviation, in pixels; beyond the border is the border."""
    radius = math.ceil(3 * deviation)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / deviation) ** 2)
    weights /= weights.sum()
    for axis in (1, 2):
        ends = [(radius, radius) if i == axis else (0, 0) for i in range(x.ndim)]
        wide = jnp.pad(x, ends, mode="edge")
        shifted = [jax.lax.slice_in_dim(wide, n, n + x.shape[axis], axis=axis) for n in range(len(weights))]
        x = jnp.tensordot(jnp.asarray(weights, x.dtype), jnp.stack(shifted), 1)
    return x
