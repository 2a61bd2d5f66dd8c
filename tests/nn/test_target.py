"""Which form of an operation a program holds when it is lowered for a platform that need not be here."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from lowering import CUDNN, FLASH, PLATFORMS, cudnn_seems_installed, lower, mesh_for

from jaxdiff.metrics import speed
from jaxdiff.nn import attention as attentions
from jaxdiff.nn.attention import attention
from jaxdiff.nn.conv import conv
from jaxdiff.nn.resnet import Upsample
from jaxdiff.nn.transformer import GegluMlp
from jaxdiff.parallel.mesh import MeshSpec, make_mesh

ONE, MANY = (1, 1, 1), (2, 2, 2)


@pytest.fixture(autouse=True)
def cudnn():
    with cudnn_seems_installed():
        yield


def lowered(function, shapes, platform, sizes=None, batch=("data", "fsdp")):
    """The program of `function` for a platform: without a mesh, or over one of such sizes that is only described."""
    if sizes is None:
        return lower(function, shapes, platform)
    with mesh_for(platform, sizes) as mesh:
        at = NamedSharding(mesh, P(batch))
        return lower(function, [jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at) for x in shapes], platform)


def shapes(b, n, h, d, m=None, dtype=jnp.bfloat16):
    q, k = (jax.ShapeDtypeStruct((b, length, h, d), dtype) for length in (n, m or n))
    return q, k, k


def value_and_gradient(function):
    return jax.value_and_grad(lambda *args: function(*args).astype(jnp.float32).sum(), (0, 1, 2))


@pytest.mark.parametrize("sizes", [None, ONE, MANY], ids=["no mesh", "one device", "mesh"])
@pytest.mark.parametrize("platform", PLATFORMS)
def test_long_attention_has_the_kernel_of_the_platform_forward_and_backward(platform, sizes):
    text = lowered(value_and_gradient(attention), shapes(8, 1024, 2, 40), platform, sizes)
    assert (FLASH in text) == (platform == "tpu")
    assert (CUDNN in text) == (platform == "cuda")
    if platform == "cuda":
        assert CUDNN + "SoftmaxBackward" in text
    if platform == "cpu" and sizes:
        assert "8x2x1024x1024" not in text, "a whole matrix of scores is never there"


def test_forms_for_other_platforms_cost_no_memory_where_no_mesh_says_the_platform():
    """Their residuals are in the traced gradient, as zeros that nothing reads."""
    step = jax.jit(value_and_gradient(attention))
    x = shapes(1, 1024, 2, 8, dtype=jnp.float32)
    memory = lambda: step.lower(*x).compile().memory_analysis().temp_size_in_bytes
    without = memory()
    with jax.set_mesh(make_mesh(MeshSpec(), jax.devices()[:1])):
        assert without == memory()


@pytest.mark.parametrize("sizes", [None, MANY], ids=["no mesh", "mesh"])
@pytest.mark.parametrize("m", [77, 16])
def test_masked_attention_of_odd_length_reaches_cudnn_with_its_gradient(m, sizes):
    mask = jax.ShapeDtypeStruct((8, m), jnp.bool_)
    call = lambda q, k, v, mask: value_and_gradient(lambda q, k, v: attention(q, k, v, mask=mask))(q, k, v)
    text = lowered(call, (*shapes(8, 65, 2, 32, m), mask), "cuda", sizes)
    assert "fmhaScaleBiasSoftmaxBackward" in text


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("n", "m"), [(77, 77), (64, 77), (77, 64)])
def test_attention_of_odd_length_without_a_mask_reaches_cudnn_with_its_gradient(n, m, causal):
    call = value_and_gradient(lambda q, k, v: attention(q, k, v, causal=causal))
    text = lowered(call, shapes(2, n, 2, 64, m), "cuda")
    assert "fmhaSoftmaxBackward" in text


def test_the_work_of_cudnn_is_counted():
    b, n, h, d, m = 2, 64, 4, 32, 48
    call = lambda q, k, v: attention(q, k, v, kernel="cudnn")
    for function, products in ((call, 2), (value_and_gradient(call), 7)):
        work = speed.work(jax.make_jaxpr(function)(*shapes(b, n, h, d, m)))
        assert work == speed.Work(float(products * 2 * b * h * n * m * d))


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_what_no_flash_kernel_takes_is_plain(platform):
    for q, k, v in (shapes(2, 64, 2, 20), shapes(2, 77, 2, 32, dtype=jnp.float32)):
        text = lowered(attention, (q, k, v), platform)
        assert FLASH not in text
        assert CUDNN not in text


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("n", "m"), [(5, 7), (7, 5), (7, 7), (8, 6)])
@pytest.mark.parametrize("masked", [False, True])
def test_cudnn_is_asked_for_what_the_plain_product_computes(n, m, masked, causal, monkeypatch):
    """cuDNN does not run here: its call is answered by JAX's own product, which takes the same arguments."""
    xla = jax.nn.dot_product_attention
    monkeypatch.setattr(jax.nn, "dot_product_attention", lambda *a, implementation, **k: xla(*a, **k))
    q, k, v = (jax.random.normal(jax.random.key(i), (2, length, 2, 8)) for i, length in enumerate((n, m, m)))
    mask = jnp.arange(m)[None] < jnp.array([[3], [m]]) if masked else None
    ours, plain = (attention(q, k, v, mask=mask, causal=causal, kernel=kernel) for kernel in ("cudnn", "plain"))
    np.testing.assert_allclose(ours, plain, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("sizes", [None, ONE])
@pytest.mark.parametrize("platform", PLATFORMS)
def test_only_a_cpu_gets_the_forms_that_are_fast_there(platform, sizes):
    x = jax.ShapeDtypeStruct((2, 32, 32, 128), jnp.float32)
    kernel = jax.ShapeDtypeStruct((3, 3, 128, 128), jnp.float32)
    no_split = lambda function, *args: lowered(function, args, platform, sizes, batch=None)
    text = no_split(conv, x, kernel)
    assert ("stablehlo.convolution" in text) == (platform != "cpu"), "Winograd's form on a CPU"

    up = Upsample(128)
    params = jax.eval_shape(up.init, jax.random.key(0), x)["params"]
    text = no_split(
        lambda x, *leaves: up.apply({"params": dict(zip(params, leaves, strict=True))}, x), x, *params.values()
    )
    assert ("stablehlo.convolution" in text) == (platform != "cpu"), "nine products on a CPU"

    mlp, rows = GegluMlp(), jax.ShapeDtypeStruct((2, 4096, 160), jnp.float32)
    params = jax.eval_shape(mlp.init, jax.random.key(0), rows)["params"]
    leaves, tree = jax.tree.flatten(params)
    text = no_split(lambda x, *leaves: mlp.apply({"params": jax.tree.unflatten(tree, leaves)}, x), rows, *leaves)
    assert ("512x1280" in text) == (platform == "cpu"), "512 positions at a time on a CPU"


@pytest.mark.parametrize(("b", "h"), [(8, 2), (2, 3), (3, 1)])
def test_a_kernel_mapped_over_a_mesh_computes_what_it_does_alone(b, h):
    """Examples and heads that divide by the mesh are split; those that do not are copied."""
    q, k, v = (jax.random.normal(key, (b, 6, h, 8)) for key in jax.random.split(jax.random.key(0), 3))
    mask = jnp.arange(6)[None] < jnp.arange(1, b + 1)[:, None]
    plain = lambda q, k, v, mask: attentions._plain(q, k, v, mask, False)
    alone = plain(q, k, v, mask)
    with jax.set_mesh(make_mesh(MeshSpec(*MANY))):
        mapped = jax.jit(lambda *args: attentions._on_mesh(plain, *args))(q, k, v, mask)
    np.testing.assert_allclose(mapped, alone, rtol=2e-6, atol=2e-7)
