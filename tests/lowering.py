"""Lowering for platforms that are not here: meshes that are only described, and a cuDNN that seems to be installed."""

import contextlib
import math
from unittest import mock

import jax
from jax._src.cudnn import fused_attention_stablehlo as cudnn
from jax.sharding import AbstractDevice, AbstractMesh, AxisType

from jaxdiff.nn import attention as attentions
from jaxdiff.parallel.mesh import AXES, MeshSpec, make_mesh

PLATFORMS = ("cpu", "cuda", "tpu")
FLASH, CUDNN = "tpu_custom_call", "__cudnn$fmha"


@contextlib.contextmanager
def cudnn_seems_installed():
    """JAX asks for cuDNN and the chip when it traces; what it then lowers needs neither."""
    attentions._cudnn_can_be_traced.cache_clear()
    with (
        mock.patch.object(cudnn, "check_cudnn_version", return_value=91000),
        mock.patch.object(cudnn, "check_compute_capability", return_value=True),
        mock.patch.object(cudnn, "is_cuda_compute_capability_equal", return_value=False),
    ):
        yield
    attentions._cudnn_can_be_traced.cache_clear()


@contextlib.contextmanager
def mesh_for(platform, sizes):
    """Gives a mesh of a platform's devices, in force within."""
    device = AbstractDevice(device_kind="none here", num_cores=1, platform=platform)
    mesh = AbstractMesh(sizes, AXES, axis_types=(AxisType.Auto,) * 3, abstract_device=device)
    context = jax.sharding.use_abstract_mesh(mesh)
    if platform == "cuda":  # cuDNN's call is lowered for devices that are there only: ours, taken for GPUs
        mesh = make_mesh(MeshSpec(*sizes), jax.devices()[: math.prod(sizes)])
        context = jax.set_mesh(mesh)
    with context, mock.patch.object(AbstractDevice, "platform", {"cuda": "gpu"}.get(platform, platform), create=True):
        yield mesh


def lower(function, arguments, platform):
    """Returns the text of a program, traced for the mesh in force and lowered for a platform."""
    return jax.jit(function).trace(*arguments).lower(lowering_platforms=(platform,)).as_text()
