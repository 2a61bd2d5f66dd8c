"""Trains an autoencoder by a loss that is one config.

    loss = |x - y| + w_p perceptual(x, y) + prior of the latents + on (w_a lambda fool(y) + tell(x, y))

The critic's terms, `fool` of the autoencoder and `tell` of the critic, count from step `adversarial_start` on. Lambda
is the adaptive weight of Esser et al., of the gradients at the decoder's last kernel. It is taken from the step before:
their means over the examples go through `absorb`, so that it is the same however a batch is split over devices.

Plain, denoising, sparse and beta-VAE autoencoders are settings of this loss. With D values in an image and

    pixel l2:   1/D (sum (x - y)^2 + kl KL),

a plain one has kl 0 and sample False; a denoising one has `corruption`; a sparse one has `sparse`; and a beta-VAE whose
decoder has variance 1 has kl = 2 beta.

Sources: Esser et al. 2021, arXiv 2012.09841, section 3.1; Rombach et al. 2022, arXiv 2112.10752, section 3.1 and
appendix G; van den Oord et al. 2017, arXiv 1711.00937; Higgins et al. 2017 (beta-VAE), ICLR.
"""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxdiff.metrics.fid import frechet_distance
from jaxdiff.models.autoencoder_kl import AutoencoderConfig, sample
from jaxdiff.models.autoencoder_vq import VQConfig
from jaxdiff.models.patch_critic import PatchCriticConfig
from jaxdiff.nn.conv import conv
from jaxdiff.objectives import adversarial, autoencoding, codebook, likeness
from jaxdiff.objectives.autoencoding import Corruption
from jaxdiff.pipelines.program import to_pixels
from jaxdiff.pretrained import perceptual
from jaxdiff.pretrained.perceptual import Perceptual
from jaxdiff.training import Known
from jaxdiff.typing import Batch, Key, Metrics, Params

OF_KL, OF_VQ = ("kl", "sample", "sparse", "rho"), ("commit", "codebook", "codebook_decay")
"""Settings of one kind of latents alone."""
MEMORY = 0.99
"""Says how slowly averages over steps forget: of the latents' moments, and of how active a unit is."""


class Made(NamedTuple):
    """Images x [b h w 3] in [-1, 1], what is made of them, what the decoder's last kernel read, the prior's loss."""

    x: Array
    y: Array
    before: Array
    prior: Array
    metrics: Metrics
    stats: dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Describes the loss of an autoencoder.

    Attributes:
      pixel: the distance of pixels, averaged over an image's values.
      perceptual: the distance that a trained classifier sees; lpips needs its published files.
      perceptual_weight: weight of that distance.
      weights: folder that holds the files of the classifier; None: where `pretrained.features` looks.
      frechet: the network under which the Frechet distance of held-out reconstructions is measured.
      kl: weight of the KL divergence of an image's latents in nats, beside the sum of its values' distances.
      sample: whether the decoder sees a draw of the Gaussian, or its mean.
      sparse: weight of KL(rho | mean activation), the activation being a sigmoid of the latents' mean.
      rho: how often a unit is to be on.
      corruption: how the encoder's input is spoilt; the decoder is to undo it.
      amount: the deviation of Gaussian noise in [-1, 1], or the part of the pixels that are spoilt.
      commit: weight of the distance of the encoder's output from its code.
      codebook: moved by averages of what it stands for (ema), or by its gradient.
      codebook_decay: how slowly averages over what a code stands for forget.
      adversarial: the critic's loss.
      adversarial_weight: weight of the autoencoder's side.
      adversarial_start: step from which the critic's terms count.
      critic: its network.
    """

    pixel: Literal["l1", "l2"] = "l1"
    perceptual: Perceptual = "efficientnet_lite0"
    perceptual_weight: float = 1.0
    weights: str | None = None
    frechet: Literal["none", "efficientnet_lite0"] = "efficientnet_lite0"
    kl: float = 1e-6
    sample: bool = True
    sparse: float = 0.0
    rho: float = 0.05
    corruption: Corruption = "none"
    amount: float = 0.0
    commit: float = 0.25
    codebook: Literal["ema", "gradient"] = "ema"
    codebook_decay: float = 0.99
    adversarial: Literal["none", "hinge", "non_saturating"] = "hinge"
    adversarial_weight: float = 0.5
    adversarial_start: int = 50_000
    critic: PatchCriticConfig = PatchCriticConfig()

    def check(self, net: AutoencoderConfig, size: int) -> None:
        """Refuses numbers that do not fit each other, the network or images with sides of `size`."""
        for name in ("perceptual_weight", "kl", "sparse", "amount", "commit", "adversarial_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"task.loss.{name} is {getattr(self, name)}: expected a number of at least 0")
        if not 0 <= self.codebook_decay < 1:
            raise ValueError(f"task.loss.codebook_decay is {self.codebook_decay}: expected at least 0, and below 1")
        if not 0 < self.rho < 1:
            raise ValueError(f"task.loss.rho is {self.rho}: expected a number between 0 and 1")
        if self.corruption not in ("none", "gaussian") and self.amount > 1:
            raise ValueError(f"task.loss.amount is {self.amount}: expected at most 1, a part of the pixels")
        if (self.corruption == "none") != (self.amount == 0):
            raise ValueError(
                f"task.loss.corruption is {self.corruption!r} and task.loss.amount {self.amount}: give both, or neither"
            )
        others, kind = (OF_KL, "autoencoder_vq") if isinstance(net, VQConfig) else (OF_VQ, "autoencoder_kl")
        for name in others:
            if getattr(self, name) != getattr(LossConfig, name):
                raise ValueError(f"task.loss.{name} is {getattr(self, name)!r}, which {kind} has no use for: leave it")
        if size < likeness.WINDOW:
            raise ValueError(
                f"data.size is {size}: expected at least {likeness.WINDOW}, the window through which SSIM looks"
            )
        perceptual.check(self.perceptual, size)
        if self.adversarial_start < 0:
            raise ValueError(f"task.loss.adversarial_start is {self.adversarial_start}: expected 0 or more")
        if self.adversarial != "none":
            self.critic.check(size, size)

    def load(self) -> Params:
        """Reads the weights of the classifiers that look at images, which training leaves as they are."""
        folder = None if self.weights is None else Path(self.weights)
        names = sorted({self.perceptual, self.frechet} - {"none"})
        return {name: perceptual.read(name, folder) for name in names}

    def init_extra(self, net: AutoencoderConfig) -> dict[str, Any]:
        """Returns what `absorb` moves, without the codebook."""
        extra: dict[str, Any] = {"latents": jnp.zeros(3)}
        extra |= {"active": jnp.full(net.latent_channels, 0.5)} if self.sparse else {}
        return extra | ({"balance": jnp.ones(())} if self.adversarial != "none" else {})

    def loss(
        self, net: AutoencoderConfig, params: Params, known: Known, batch: Batch, keys: Key
    ) -> tuple[Array, Metrics, Any]:
        """Returns the loss of the autoencoder and its critic, metrics and stats."""
        output = self._make(net, params, known, batch, keys)
        if self.adversarial == "none":
            distance, metrics = self._distance(known, output.x, output.y)
            return distance + output.prior, {**output.metrics, **metrics}, output.stats
        kind, stop, y = self.adversarial, jax.lax.stop_gradient, jax.lax.stop_gradient(output.y)
        critic = lambda part, image: _apply(self.critic, part, image)
        differ = lambda y: self._distance(known, output.x, y)
        fool_with = lambda y: adversarial.generator_loss(critic(stop(params["critic"]), y), kind)
        (distance, metrics), by_distance = jax.value_and_grad(differ, has_aux=True)(y)
        fool, by_fool = jax.value_and_grad(fool_with)(y)
        tell = adversarial.critic_loss(critic(params["critic"], output.x), critic(params["critic"], y), kind)
        on = (known.step >= self.adversarial_start).astype(jnp.float32)
        weight = on * self.adversarial_weight * known.extra["balance"]
        loss = adversarial.passed_on(distance, by_distance, output.y) + output.prior
        loss += weight * adversarial.passed_on(fool, by_fool, output.y) + on * tell
        kernel = stop(params["generator"]["decoder"]["conv_out"]["kernel"])
        last = lambda kernel: conv(stop(output.before), kernel.astype(net.dtype)).astype(jnp.float32)
        _, pull = jax.vjp(last, kernel)
        stats = {**output.stats, "last": [pull(gradient)[0] for gradient in (by_distance, by_fool)]}
        sides = {"fool": fool, "tell": tell, "balance": known.extra["balance"]}
        return loss, {**output.metrics, **metrics, **sides}, stats

    def held_out(
        self, net: AutoencoderConfig, params: Params, known: Known, batch: Batch, keys: Key
    ) -> tuple[Array, Metrics, Any]:
        """Returns the loss without the critic, of the latents' means, how near reconstructions are, and their moments.

        What is measured is what the decoder makes of the input as it is trained, corrupted or not.
        """
        output = dataclasses.replace(self, sample=False)._make(net, params, known, batch, keys)
        distance, metrics = self._distance(known, output.x, output.y)
        pixels = to_pixels(output.y)
        near = {
            "psnr": likeness.psnr(batch["image"], pixels).mean(),
            "ssim": likeness.ssim(batch["image"], pixels).mean(),
        }
        stats: dict[str, Any] = {}
        if self.frechet != "none":
            look = lambda pixels: likeness.moments(perceptual.looked_at(known.frozen[self.frechet], pixels))
            stats["frechet"] = {"real": look(batch["image"]), "made": look(pixels)}
        if isinstance(net, VQConfig):
            stats["chosen"] = output.stats["codebook"].chosen
        return distance + output.prior, {**output.metrics, **metrics, **near}, stats

    def summary(self, stats: Any) -> Mapping[str, float]:
        """Returns the Frechet distance of held-out reconstructions, and the part of the codes that they use at all."""
        metrics = {}
        if "frechet" in stats:
            real, generated = (_moments(stats["frechet"][name]) for name in ("real", "made"))
            metrics["frechet"] = frechet_distance(*real, *generated)
        if "chosen" in stats:
            metrics["usage"] = float((np.asarray(stats["chosen"]) > 0).mean())
            metrics["perplexity"] = float(codebook.usage(jnp.asarray(stats["chosen"]))[1])
        return metrics

    def absorb(self, extra: Any, stats: Any) -> Any:
        """Moves the averages over steps, the codebook and the critic's weight."""
        moved = dict(extra)
        for name in ("latents", "active"):
            if name in extra:
                moved[name] = MEMORY * extra[name] + (1 - MEMORY) * stats[name]
        if "codebook" in extra:
            book, follow = extra["codebook"], self.codebook == "ema"
            by_optimizer = 0.0 if follow else stats["codes"] - book.codes
            book = book._replace(codes=book.codes + by_optimizer)
            book = codebook.move(book, stats["codebook"], self.codebook_decay, follow=follow)
            moved["codebook"] = book._replace(codes=book.codes - by_optimizer)
        if "balance" in extra:
            moved["balance"] = adversarial.balance(*stats["last"])
        return moved

    def _make(self, net: AutoencoderConfig, params: Params, known: Known, batch: Batch, keys: Key) -> Made:
        """Takes images through encoder and decoder."""
        x = to_unit(batch["image"])
        weights = weights_of(params["generator"], known.extra)
        spoil, own = (jax.vmap(lambda key, i=i: jax.random.fold_in(key, i))(keys) for i in range(2))
        spoilt = autoencoding.corrupt(x, spoil, self.corruption, self.amount)
        latents: Any = self._codes if isinstance(net, VQConfig) else self._gaussian
        z, moments, prior, metrics, stats = latents(net, weights, spoilt, known, own)
        stats["latents"] = jax.lax.stop_gradient(jnp.stack([jnp.ones(()), *moments]))
        at_end = lambda module, _: module.path == ("decoder", "norm_out")
        y, kept = _apply(net, weights, z, method="decode", capture_intermediates=at_end, mutable=["intermediates"])
        return Made(x, y, kept["intermediates"]["decoder"]["norm_out"]["__call__"][0], prior, metrics, stats)

    def _gaussian(self, net: AutoencoderConfig, weights: Params, x: Array, known: Known, keys: Key) -> Any:
        """Returns what the decoder sees, its first two moments, the loss of the prior, metrics and stats."""
        mean, log_var = _apply(net, weights, x, method="encode")
        kl = autoencoding.gaussian_kl(mean, log_var).mean()
        prior, metrics, stats = self.kl / x[0].size * kl, {"kl": kl}, {}
        if self.sparse:
            active = jax.nn.sigmoid(mean).mean((0, 1, 2))
            # the divergence of an average over many steps, whose gradient a step follows: of one batch it would
            # depend on how that is split
            value, slope = jax.value_and_grad(autoencoding.bernoulli_kl)(known.extra["active"], self.rho)
            prior += self.sparse * adversarial.passed_on(value, slope, active)
            metrics["sparse"] = value
            stats["active"] = jax.lax.stop_gradient(active)
        z = sample(mean, log_var, keys) if self.sample else mean
        second = (mean**2 + (jnp.exp(log_var) if self.sample else 0.0)).mean()
        return z, (mean.mean(), second), prior, metrics, stats

    def _codes(self, net: VQConfig, weights: Params, x: Array, known: Known, keys: Key) -> Any:
        """Does the same for a codebook; the gradient by its vectors goes straight through to the encoder's output."""
        z, stop = _apply(net, weights, x, method="encode"), jax.lax.stop_gradient
        q, index = _apply(net, weights, z, method="quantize")
        prior = self.commit * ((z - stop(q)) ** 2).mean()
        prior += ((stop(z) - q) ** 2).mean() if self.codebook == "gradient" else 0.0
        used, perplexity = codebook.usage(known.extra["codebook"].chosen)
        stats: dict[str, Any] = {"codebook": codebook.seen(stop(z), index, keys, net.codes)}
        stats |= {"codes": stop(weights["codebook"])} if self.codebook == "gradient" else {}
        return z + stop(q - z), (z.mean(), (z**2).mean()), prior, {"usage": used, "perplexity": perplexity}, stats

    def _distance(self, known: Known, x: Array, y: Array) -> tuple[Array, Metrics]:
        pixel = (jnp.abs(x - y) if self.pixel == "l1" else (x - y) ** 2).mean()
        if self.perceptual == "none":
            return pixel, {"pixel": pixel}
        looks = perceptual.distance(self.perceptual, known.frozen[self.perceptual], x, y).mean()
        return pixel + self.perceptual_weight * looks, {"pixel": pixel, "perceptual": looks}


def weights_of(generator: Params, extra: Any) -> Params:
    """Returns all parameters of an autoencoder.

    Its codebook is what `absorb` moves: the vectors themselves, or how far those that the optimizer moves were carried
    where they started again.
    """
    if "codebook" not in extra:
        return generator
    return {**generator, "codebook": extra["codebook"].codes + generator.get("codebook", 0.0)}


def to_unit(image: Array) -> Array:
    """Returns uint8 images in [-1, 1]."""
    return image.astype(jnp.float32) / 127.5 - 1


def _apply(net: Any, params: Params, *args: Any, **how: Any) -> Any:
    quantized = {"quantized": True} if isinstance(net, VQConfig) and how.get("method") == "decode" else {}
    return net.build().apply({"params": params}, *args, **how, **quantized)


def _moments(moments: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and covariance of first and second moments."""
    mean, second = (np.asarray(moments[name], np.float64) for name in ("mean", "second"))
    return mean, second - np.outer(mean, mean)
