"""The kernels that whole programs hold when they are lowered, on this machine, for platforms that need not be here."""

import ast
import dataclasses
from pathlib import Path

import jax
import pytest
from lowering import CUDNN, FLASH, PLATFORMS, cudnn_seems_installed, lower, mesh_for

import jaxdiff
from jaxdiff.cli.config import read_config
from jaxdiff.dryrun import sampling, subject
from jaxdiff.parallel.mesh import MeshSpec, make_mesh

ONE, MANY = (1, 1, 1), (2, 2, 2)


@pytest.fixture(autouse=True)
def cudnn():
    with cudnn_seems_installed():
        yield


def config(dtype):
    """Text to pictures of 32 x 32: an odd number of words, some of them masked, beside 1024 positions."""
    small = read_config(Path("configs/quickstart.py"), small=True)
    net = dataclasses.replace(small.task.net, channels=(128,), attention=("cross",), patch=1, groups=8, dtype=dtype)
    task = dataclasses.replace(small.task, net=net, text=dataclasses.replace(small.task.text, length=7))
    return dataclasses.replace(small, task=task, data=dataclasses.replace(small.data, size=32))


def train(dtype, mesh, folder):
    described = subject.describe(config(dtype), mesh)
    return described.step, described.arguments(8)


def sample(dtype, mesh, folder):
    of = config(dtype)
    of.task.assets(folder, of.data, subject.Nothing(32, 0), new=True)
    described = sampling.describe(sampling.outline(folder, of), mesh, steps=2, guidance=2.0)
    return described.function, described.arguments(8)


@pytest.mark.parametrize("sizes", [ONE, MANY], ids=["one device", "mesh"])
@pytest.mark.parametrize(("platform", "dtype"), [("cpu", "float32"), ("cuda", "bfloat16"), ("tpu", "bfloat16")])
@pytest.mark.parametrize("program", [train, sample])
def test_a_program_has_the_kernels_of_the_platform_that_it_is_for(program, platform, dtype, sizes, tmp_path):
    with mesh_for(platform, sizes) as mesh:
        text = lower(*program(dtype, mesh, tmp_path), platform)
    assert (FLASH in text) == (platform == "tpu"), "positions see each other"
    assert (CUDNN + "Softmax(" in text) == (platform == "cuda"), "positions see each other"
    assert (CUDNN + "ScaleBiasSoftmax(" in text) == (platform == "cuda"), "positions see the words that are not masked"
    backward = platform == "cuda" and program is train
    assert (CUDNN + "SoftmaxBackward(" in text) == (CUDNN + "ScaleBiasSoftmaxBackward(" in text) == backward
    assert has_wide_convolution(text) == (platform != "cpu")


def has_wide_convolution(text):
    """Whether one of 128 channels is there as it is, not in Winograd's form."""
    return any("stablehlo.convolution" in line and "3x3x128x128x" in line for line in text.splitlines())


def test_a_program_that_was_traced_without_a_mesh_is_lowered_for_each_platform(tmp_path):
    function, arguments = sample("float32", make_mesh(MeshSpec(), jax.devices()[:1]), tmp_path)
    traced = jax.jit(function).trace(*jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), arguments))
    for platform in PLATFORMS:
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert (FLASH in text) == (platform == "tpu")
        assert has_wide_convolution(text) == (platform != "cpu")


ABSTRACT = ("nn", "models", "parallel", "sampling", "diffusion", "pipelines")


def names(path):
    """All names in a file: of variables, attributes and what is imported."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    return {getattr(node, field, None) for node in nodes for field in ("attr", "id", "name")}


@pytest.mark.parametrize("package", ABSTRACT)
def test_no_program_asks_which_platform_it_is_traced_on(package):
    files = sorted((Path(jaxdiff.__file__).parent / package).rglob("*.py"))
    assert files
    assert not [str(path) for path in files if "default_backend" in names(path)]
