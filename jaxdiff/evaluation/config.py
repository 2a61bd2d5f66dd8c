"""The options of `jaxdiff evaluate`, importable in a moment, and the checks that need no data."""

import dataclasses
import difflib
import importlib.util
import math
import os
import shlex
from pathlib import Path
from typing import Literal

COMPARED = ("frechet", "kid", "neighbours", "inception_score", "diversity")
"""Metrics of features; the others are of pairs, of captions, and of the model itself."""
PAIRED = ("psnr", "ssim", "lpips")
"""Metrics of pairs of pictures."""
METRICS = (*COMPARED, *PAIRED, "clip", "bound", "ode", "bits")

BOUNDS = {
    "num": (1, 10**6),
    "size": (0, 4096),
    "k": (1, 10**4),
    "resamples": (0, 10**5),
    "steps": (1, 10**4),
    "seed": (0, 2**64 - 1),
    "bound_steps": (0, 10**6),
    "batch_size": (1, 2**16),
}
"""The least and the most of each number."""


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """Measures the quality of a model's pictures, or of a folder of pictures, against real ones.

    Attributes:
      model: run of `jaxdiff train` or another model directory; its pictures are made in WORKDIR/pictures, where an
        interrupted evaluation resumes.
      generated: folder of pictures to measure instead.
      autoencoder: diffusers directory of an autoencoder, whose reconstructions of the reference are measured instead.
      reference: the real pictures: a TFDS name, a folder (its captions, in any form that training reads, are prompts),
        or a .npz with the statistics of their features (mu and sigma; only frechet can use it). Default: what the
        model was trained on.
      workdir: directory for pictures, their features, results.json and results.md.
      metrics: frechet, kid, neighbours (precision, recall, density, coverage), inception_score, diversity, clip (score
        and R-precision); psnr, ssim, lpips (of reconstructions, or of two folders with the same names); bound, ode
        (bits/dim of the reference under a diffusion model); bits (the same, from a model with its own likelihood).
      num: number of pictures to make, at most a million; of a folder, the most to read.
      split: split of the reference.
      subset: subset of the reference, as in training: plain or quickstart of openmoji.
      data_dir: directory of prepared TFDS data.
      size: side in pixels to which pictures are scaled and cropped; 0: the model's size, or their own.
      network: network of the features: efficientnet_lite0 (comes with the extra `metrics`) or inception (FID).
      width: width of the features, like pytorch-fid's dims; default: the network's last.
      weights: file of the network's weights; default: where `jaxdiff.pretrained.features` looks.
      resize: how pictures are scaled for InceptionV3: tensorflow, pytorch (as pytorch-fid), clean (as clean-fid).
      clip: directory of a CLIP model, for the metric clip.
      lpips: network of the metric lpips.
      k: index of the nearest neighbour that sets the radius of the balls in `neighbours`.
      resamples: number of bootstrap resamples for the intervals; 0 gives no intervals.
      save_statistics: .npz file to write the reference's statistics to.
      prompt: prompts to use in turn; default: the captions of the reference, shuffled.
      steps: number of sampling steps.
      sampler: sampling method; `jaxdiff sample --help` lists them.
      guidance: classifier-free guidance scale; 1 turns it off.
      seed: random seed from 0 to 2^64 - 1; picture i depends only on the seed and i.
      bound_steps: number of steps of the bound's chain, one network call each; 0 estimates the limit of many.
      batch_size: number of pictures at once on each device.
      sweep: samplers to compare, such as ddpm,ddim,dpmpp_2m,unipc,heun, each with every number of `calls`.
      calls: numbers of network calls in a sweep, separated by commas.
    """

    model: str = ""
    generated: Path | None = None
    autoencoder: Path | None = None
    reference: str = ""
    workdir: Path = Path("evaluation")
    metrics: tuple[str, ...] = ("frechet", "kid", "neighbours", "diversity")
    num: int = 2048
    split: str = "all"
    subset: str = "all"
    data_dir: str | None = None
    size: int = 0
    network: str = "efficientnet_lite0"
    width: str = ""
    weights: Path | None = None
    resize: str = "tensorflow"
    clip: Path | None = None
    lpips: Literal["alex", "vgg"] = "alex"
    k: int = 5
    resamples: int = 100
    save_statistics: Path | None = None
    prompt: tuple[str, ...] = ()
    steps: int = 20
    sampler: str = "ddim"
    guidance: float = 3.0
    seed: int = 0
    bound_steps: int = 1000
    batch_size: int = 16
    sweep: str = ""
    calls: str = "5,10,20,50"


def check(config: EvaluateConfig) -> None:
    """Checks all that needs neither data nor model: names, numbers, what goes together, and then paths.

    Raises:
      ValueError: says what was given, what is expected, and what to do.
      OSError: if an input does not exist, or the workdir cannot be written to.
    """
    _check_numbers(config)
    _check_options(config)
    _check_paths(config)


def calls(config: EvaluateConfig) -> list[int]:
    """Returns the numbers of network calls of a sweep.

    Raises:
      ValueError: if they are not whole numbers from 1 to 10000 between commas.
    """
    try:
        numbers = [int(n) for n in config.calls.split(",")]
    except ValueError:
        numbers = [0]
    if not all(1 <= n <= 10**4 for n in numbers):
        raise ValueError(f"calls is {config.calls[:40]!r}: expected whole numbers from 1 to {10**4} between commas")
    return numbers


def _check_numbers(config: EvaluateConfig) -> None:
    for field, (least, most) in BOUNDS.items():
        if type(value := getattr(config, field)) is not int or not least <= value <= most:
            raise ValueError(f"{field} is {value}: expected a whole number from {least} to {most}")
    if not math.isfinite(config.guidance):
        raise ValueError(f"guidance is {config.guidance}: expected a finite number; 1 is off")


def _check_options(config: EvaluateConfig) -> None:
    from jaxdiff.sampling import registry

    if not config.metrics:
        raise ValueError(f"no metric was given: expected some of {', '.join(METRICS)}")
    for name in config.metrics:
        if name not in METRICS:
            near = difflib.get_close_matches(name, METRICS, 1)
            raise ValueError(
                f"unknown metric {name!r}: expected one of {', '.join([*near, *(m for m in METRICS if m not in near)])}"
            )
    if sum(map(bool, (config.model, config.generated, config.autoencoder))) != 1:
        raise ValueError(
            "expected one of --model, whose pictures are made, --generated, a folder of pictures, and --autoencoder"
        )
    for name in [config.sampler, *(config.sweep.split(",") if config.sweep else ())]:
        registry.lookup("sampler", name, registry.SAMPLERS)
    calls(config)
    own = {"bound", "ode", "bits"} & {*config.metrics}
    if not config.model and (own or config.sweep):
        raise ValueError(f"{' and '.join(sorted(own)) or 'a sweep'} needs --model: it is not of pictures alone")
    if "clip" in config.metrics and not config.clip:
        raise ValueError("the metric clip needs --clip, a directory of a CLIP model")
    if "inception_score" in config.metrics and config.network != "inception":
        raise ValueError("inception_score needs --network inception, whose classes it counts")
    if config.reference.endswith(".npz") and (other := {*config.metrics} - {"frechet", "clip", "inception_score"}):
        raise ValueError(
            f"{config.reference} has statistics and no pictures, which {', '.join(sorted(other))} need: "
            "give --metrics frechet, or a folder or data set as --reference"
        )
    paired = {*PAIRED} & {*config.metrics}
    if paired and not (config.autoencoder or (config.generated and Path(config.reference).is_dir())):
        raise ValueError(
            f"{', '.join(sorted(paired))}: pairs need --autoencoder, or two folders, --generated and --reference"
        )
    if config.autoencoder and config.reference.endswith(".npz"):
        raise ValueError(f"--autoencoder needs pictures to reconstruct, and {config.reference} has statistics alone")
    for module, wanted, extra in (("matplotlib", config.sweep, "metrics"), ("diffrax", "ode" in own, "ode")):
        if wanted and not importlib.util.find_spec(module):
            raise ValueError(f"this needs {module}: pip install 'jaxdiff[{extra}]'")


def _check_paths(config: EvaluateConfig) -> None:
    from jaxdiff.data.source import kind_of

    for what, path in (
        ("folder of pictures", config.generated),
        ("folder of an autoencoder", config.autoencoder),
        ("directory of a CLIP model", config.clip),
    ):
        if path and not path.is_dir():
            raise FileNotFoundError(f"no {what} at {path}")
    if config.weights and not config.weights.is_file():
        raise FileNotFoundError(f"no file of weights at {config.weights}")
    if config.reference.endswith(".npz"):
        if not Path(os.path.expanduser(config.reference)).is_file():
            raise FileNotFoundError(f"no file of statistics at {config.reference}")
    elif config.reference:
        kind_of(config.reference)
    if (file := config.save_statistics) and (file.suffix != ".npz" or file.is_dir()):
        raise ValueError(f"save_statistics is {file}: expected a file that ends in .npz")
    for folder in (config.workdir, *([file.parent] if file else ())):
        there = next(one for one in (folder.absolute(), *folder.absolute().parents) if one.exists())
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            raise OSError(
                f"cannot write to {folder}: {there} is {'not a folder' if not there.is_dir() else 'read-only'}"
            )


def command(config: EvaluateConfig) -> str:
    """Returns the command line that means the same."""
    words = ["jaxdiff evaluate"]
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if value != field.default:
            values = value if isinstance(value, tuple) else (value,)
            words += [f"--{field.name.replace('_', '-')}", *(shlex.quote(str(one)) for one in values)]
    return " ".join(words)
