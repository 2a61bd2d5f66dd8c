"""Models of our own training as bundles, so that one pipeline samples what we train and what others trained."""

from collections.abc import Sequence

from jaxdiff.data.tokenizer import BytePair
from jaxdiff.models.text import TextConfig
from jaxdiff.models.unet import UNetConfig
from jaxdiff.pretrained.read import Bundle, Component
from jaxdiff.pretrained.scheduler import Process
from jaxdiff.typing import Params


def diffusion_bundle(
    unet: UNetConfig,
    params: Params,
    *,
    process: Process,
    size: int,
    text: TextConfig | None = None,
    vocabulary: BytePair | None = None,
    labels: Sequence[str] = (),
    vae: Component | None = None,
    guidance: float = 3.0,
) -> Bundle:
    """Returns a diffusion model of our own training, as a pipeline takes it.

    Args:
      unet: the numbers of the U-Net.
      params: {"unet": ...}, and "text" of a model that reads text.
      process: schedule, kind of prediction and default sampler; in pixels it clips x0 to [-1, 1].
      size: side of the pictures, or of the latents where there is an autoencoder.
      text: the numbers of the text encoder; None: the model reads no text.
      vocabulary: vocabulary of the text encoder.
      labels: names of the classes, of a model that knows classes.
      vae: the autoencoder, as a component; None: the model works on pixels.
      guidance: the scale of calls that give none.

    Raises:
      ValueError: if vocabulary or labels do not belong to such a model.
    """
    if (text is None) != (vocabulary is None):
        raise ValueError(
            f"the model has {'no text' if text is None else 'a text'} encoder and "
            f"{'no' if vocabulary is None else 'a'} vocabulary: it needs both (vocabulary.json of the run), or neither"
        )
    if text and vocabulary and vocabulary.size > text.vocabulary:
        raise ValueError(
            f"the vocabulary has {vocabulary.size} ids and the text encoder knows {text.vocabulary}: it is of another "
            "run"
        )
    if len(labels) != unet.labels:
        raise ValueError(
            f"there are names of {len(labels)} classes and the model knows {unet.labels}: give one for each "
            "(labels.txt of the run)"
        )
    parts = {"unet": Component("UNet", {"sample_size": size}, unet, params["unet"])}
    if text:
        parts["text_encoder"] = Component("TextTransformer", {}, text, params["text"])
    if vae:
        parts["vae"] = vae
    words = {"tokenizer": vocabulary} if vocabulary else {}
    return Bundle("jaxdiff", {}, parts, words, {}, native=process, labels=tuple(labels), guidance=guidance)
