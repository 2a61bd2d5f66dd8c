"""The static part of a pipeline, fixed when it is compiled: its networks' configs, and how they connect."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from jaxdiff.models.image_clip import ImageTokens, Resampler, StateTokens
from jaxdiff.models.text_clip import ClipTextConfig
from jaxdiff.pretrained.read import Bundle
from jaxdiff.pretrained.rules import flatten
from jaxdiff.pretrained.scheduler import Process
from jaxdiff.pretrained.widths import of_context


@dataclasses.dataclass(frozen=True)
class Model:
    """The static part of a pipeline.

    Attributes:
      nets: configs of the networks by component.
      kinds: their classes in the reference library.
      process: schedule and kind of prediction.
      channels: channels of a latent, or of a picture where there is no autoencoder.
      labels: names of the classes, where it knows classes; the label after the last stands for nothing.
      extra: what the U-Net's input has besides them; tells its task (`program.read_pictures`).
      noised_small: whether noise is added to a small picture before it is enlarged, and not after.
      picture: what the picture beside its latents is, of a model of our own that one steers: low_resolution,
        blurred, semantic_map; or of GLIDE, whose upsampler has no level of noise, low_resolution.
      known: whether a model that fills sees the known part and where it is, and its estimates are made to agree
        with it (GLIDE).
      skip: text states are those before the last `skip` blocks.
      norm: whether the text encoder's final norm is applied to them.
      sizes: how many numbers about the picture's size SDXL's U-Net takes; 0: none.
      waves: for each of them.
      embed: width of CLIP's embedding of a picture, of which it draws the picture; 0: it draws none.
      picture_tokens: the IP-adapter's.
      decode: `whole`, `sliced` (one picture after another) or `tiled`.
      safety: whether pictures go through the safety checker.
    """

    nets: Mapping[str, Any]
    kinds: Mapping[str, str]
    process: Process
    channels: int
    labels: tuple[str, ...] = ()
    extra: int = 0
    noised_small: bool = False
    picture: str = ""
    known: bool = False
    skip: int = 0
    norm: bool = True
    sizes: int = 0
    waves: int = 0
    embed: int = 0
    picture_tokens: ImageTokens | Resampler | StateTokens | None = None
    decode: str = "whole"
    safety: bool = False

    def named(self, start: str) -> list[str]:
        """Returns the components whose names begin so, in order."""
        return sorted(name for name in self.nets if name.startswith(start))

    @property
    def texts(self) -> dict[str, int]:
        """Returns tokens that each text encoder takes, by component."""
        return {name: self.nets[name].length for name in self.named("text_encoder")}

    @property
    def reads(self) -> bool:
        """Returns whether prompts say what it shows, in words or as a class."""
        return bool(self.texts or self.labels)

    @property
    def chunked(self) -> bool:
        """Returns whether prompts may be weighted, and longer than one text of the encoder: CLIP's."""
        return any(isinstance(self.nets[name], ClipTextConfig) for name in self.texts)

    @property
    def enlarges(self) -> bool:
        """Returns whether it enlarges a picture: of latents by three channels, of pixels by a level too."""
        return self.extra in (3, self._both) and (self.channels != 3 or self.nets["unet"].augment or bool(self.picture))

    @property
    def edits(self) -> bool:
        """Returns whether it edits a picture by an instruction."""
        return self.extra == self.channels and not self.enlarges

    @property
    def fills(self) -> bool:
        """Returns whether it was trained to fill the part of a picture that a mask names."""
        return self.extra == self._both or (self.extra == self.channels + 1 and not self.enlarges)

    @property
    def _both(self) -> int:
        """Returns the channels beside the noisy ones of a model that enlarges and fills; -1: it is of another kind."""
        return self.channels + 4 if self.known and self.picture else -1

    @property
    def deep(self) -> bool:
        """Returns whether it takes a map of depth (Stable Diffusion 2's depth model)."""
        return self.extra == 1

    @property
    def looks(self) -> bool:
        """Returns whether a picture steers it, beside the prompt (IP-adapter) or instead (variations)."""
        alone = "image_encoder" in self.nets and (self.noises or not self.texts)
        return self.picture_tokens is not None or alone

    @property
    def noises(self) -> bool:
        """Returns whether noise is added to the embedding that it draws (Stable unCLIP)."""
        return "image_normalizer" in self.nets

    @property
    def blends(self) -> bool:
        """Returns whether what a mask leaves is put back after each step."""
        return not self.fills or bool(self.embed and not self.texts)

    @property
    def steered(self) -> bool:
        """Returns whether anything steers it that guidance could follow more closely."""
        return self.reads or self.looks or bool(self.embed)

    @property
    def embeds_guidance(self) -> bool:
        """Returns whether its U-Net is conditioned on the guidance scale, and so is called once a step."""
        return bool(getattr(self.nets["unet"], "guidance_width", 0))

    @property
    def factor(self) -> int:
        """Returns picture pixels for each latent."""
        net = self.nets.get("vae")
        return 1 if net is None else 2 ** (len(getattr(net, "channels", ()) or net.encoder_channels) - 1)

    @property
    def unit(self) -> int:
        """Sides of pictures are multiples of it."""
        sides = self.factor * self.nets["unet"].unit
        return math.lcm(sides, self.nets["adapter"].unit) if "adapter" in self.nets else sides


def renamed(bundle: Bundle) -> Bundle:
    """Returns a bundle whose components have one name each: latent diffusion's models, and Kandinsky, have others."""
    names = {"vqvae": "vae", "movq": "vae", "bert": "text_encoder"}
    return dataclasses.replace(bundle, components={names.get(n, n): part for n, part in bundle.components.items()})


def make_model(bundle: Bundle, *, clip_skip: int = 0, **options: Any) -> Model:
    """Returns the model of a bundle.

    Args:
      bundle: its networks.
      clip_skip: text states are taken so many blocks earlier than the authors do.
      options: `picture_tokens`, `decode` and `safety` of `Model`.

    Raises:
      ValueError: if the bundle has no U-Net, lacks a tokenizer, or takes channels of no known meaning.
    """
    bundle = renamed(bundle)
    parts = bundle.components
    if "unet" not in parts:
        raise ValueError(
            f"{bundle.kind} has no unet but {', '.join(parts) or 'no network'}: those that work have a "
            "UNet2DConditionModel or a UNet2DModel"
        )
    for name in parts:
        if name.startswith("text_encoder") and name.replace("text_encoder", "tokenizer") not in bundle.tokenizers:
            raise ValueError(f"{bundle.kind} has {name} but no tokenizer for it: pass tokenizer, the directory of one")
    unet, net, xl = parts["unet"].json, parts["unet"].config, "text_encoder_2" in parts
    process = bundle.process()
    vae = parts["vae"].config if "vae" in parts else None
    if process.says == "prediction" and net.out_channels == 2 * _latents(vae):  # which its own sampler passes over
        process = dataclasses.replace(process, says="variance")
    channels = net.out_channels // 2 if process.says == "variance" else net.out_channels
    extra = parts["unet"].params["conv_in"]["kernel"].shape[2] // net.patch**2 - channels - 4 * net.hint
    known = bool(bundle.native and bundle.index.get("known"))
    if extra not in (0, 1, 3, channels, channels + 1, *((channels + 4,) if known else ())):
        learned = f" ({net.out_channels} with the learned variance)" if channels < net.out_channels else ""
        raise ValueError(
            f"the unet takes {extra} channels besides the {channels} of a latent{learned}: known are 0, "
            f"{channels + 1} (inpainting), {channels} (editing), 3 (upscaling) and 1 (depth)"
        )
    if extra == channels != 3 and process.says != "prediction":
        raise ValueError(f"the unet edits pictures, and says {process.says}: expected its prediction alone")
    labels: tuple[str, ...] = ()
    picture = bundle.index.get("picture", "") if bundle.native else ""
    picture = "low_resolution" if bundle.kind == "LDMSuperResolutionPipeline" else picture
    if net.labels and (extra != 3 or picture or net.augment):  # an upscaler's label is the level of its noise
        labels = bundle.labels or tuple(map(str, range(net.labels + 1)))
    if net.reads_context and not any(name.startswith(("text_encoder", "image_encoder")) for name in parts):
        raise ValueError(
            f"{bundle.kind} has no text_encoder, and its unet attends to a text's states: put the folders text_encoder "
            "and tokenizer of the stage before it into its directory, or give it as a later stage of that one"
        )
    _check_beside(parts)
    texts = [part.config for name, part in parts.items() if name.startswith("text_encoder")]
    if clip_skip and not all(isinstance(text, ClipTextConfig) for text in texts):
        raise ValueError("clip_skip is for CLIP's text encoders: this model has another, so leave it out")
    waves = unet["addition_time_embed_dim"] if unet.get("addition_embed_type") == "text_time" else 0
    numbers = unet.get("projection_class_embeddings_input_dim") or 0
    return Model(
        nets={name: part.config for name, part in parts.items()},
        kinds={name: part.kind for name, part in parts.items()},
        process=process,
        channels=channels,
        labels=labels,
        extra=extra,
        noised_small=bool(bundle.native) and bundle.index.get("noise") == "small",
        picture=picture,
        known=known,
        skip=clip_skip + xl,
        norm=not xl,
        sizes=(numbers - parts["text_encoder_2"].config.projection) // waves if waves and xl else 0,
        waves=waves,
        embed=_embed(parts),
        **options,
    )


def _check_beside(parts: Mapping[str, Any]) -> None:
    """Refuses ControlNets and T2I-adapters of another U-Net than the one that adds what they say."""

    def shape_of(part: Any, net: Any) -> str:
        widths = [x.shape[0] for path, x in flatten(part.params).items() if path.endswith("attn2/k/kernel")]
        levels = f"levels of {', '.join(map(str, net.channels))}"
        return f"{levels} with {net.layers} blocks, {of_context(widths[0]) if widths else 'without text'}"

    unet, net = parts["unet"], parts["unet"].config
    for name, part in parts.items():
        if name.startswith("controlnet") and shape_of(part, part.config.net) != shape_of(unet, net):
            raise ValueError(
                f"{name} is for {shape_of(part, part.config.net)}: this model's U-Net has {shape_of(unet, net)}"
            )
        if name == "adapter" and part.config.channels not in (net.channels, (*net.channels, net.channels[-1])):
            raise ValueError(
                f"the adapter has features of {part.config.channels}: this model's U-Net has {net.channels}"
            )


def _latents(vae: Any) -> int:
    """Returns channels of an autoencoder's latents; 0 without one."""
    return 0 if vae is None else getattr(vae, "width", vae.latent_channels)


def _embed(parts: Mapping[str, Any]) -> int:
    """Returns the width of CLIP's embedding that a U-Net draws; 0: it draws none."""
    params, net = parts["unet"].params, parts["unet"].config
    if "image_normalizer" in parts:
        return int(parts["image_normalizer"].config.width)
    if net.tokens in ("image", "text_image"):
        return int(params["context_image"]["tokens"]["kernel"].shape[0])
    if net.addition in ("image", "text_image"):
        layer = params["image_embed"]
        return int(layer.get("proj", layer)["kernel"].shape[0])
    return 0
