"""Attention, in one place: `attention` picks the kernel for the platform, the dtype and the number of tokens.

    softmax(q k' / sqrt(d)) v

On a CPU a softmax over a big score matrix is bound by memory, so long sequences go a head and `_BLOCK` queries at a
time; on a GPU 16-bit inputs go to cuDNN's flash attention; on a TPU long ones go to Pallas' flash attention. The rest
is the plain product. All keep the softmax in float32.

The compiler cannot split the flash kernels over devices by itself, so they are mapped over the mesh in force by hand.
"""

import functools
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float

from jaxdiff.nn.target import by_platform, known_platform

_BLOCK = 512  # queries at a time on CPU: a 512 x 4096 float32 block of scores fits the second-level caches


def attention(
    q: Float[Array, "b n h d"],
    k: Float[Array, "b m h d"],
    v: Float[Array, "b m h d"],
    *,
    mask: Bool[Array, "b m"] | None = None,
    causal: bool = False,
    kernel: str | None = None,
) -> Float[Array, "b n h d"]:
    """Returns multi-head attention of n queries over m keys.

    Args:
      q: queries; its dtype is the output's.
      k: keys.
      v: values.
      mask: true where a key may be looked at; at least one key of each row must be.
      causal: query i sees keys 0..i only.
      kernel: `plain`, `blocked`, `cudnn` or `flash`; None picks by the platform compiled for, dtype and length.
    """
    if kernel is not None:
        return _KERNELS[kernel](q, k, v, mask, causal)
    n, m, d = q.shape[1], k.shape[1], q.shape[-1]
    call = lambda kernel: lambda q, k, v, mask: kernel(q, k, v, mask, causal)
    narrow = q.dtype in (jnp.bfloat16, jnp.float16) and d % 8 == 0 and d <= 128
    return by_platform(
        *(q, k, v, mask),
        cpu=call(_blocked) if n * m > _BLOCK**2 else None,
        gpu=call(_cudnn) if narrow and (known_platform() or _cudnn_can_be_traced()) else None,
        tpu=call(_flash) if mask is None and n % _BLOCK == m % _BLOCK == 0 else None,
        default=call(_plain),
    )


def _bias(n: int, m: int, mask: Array | None, causal: bool) -> Array | None:
    """Returns the bias of the scores [b, 1, n, m]: 0 where a query may look, a large negative number elsewhere."""
    seen = None if mask is None else mask[:, None, None, :]
    if causal:
        lower = jnp.tril(jnp.ones((n, m), bool))[None, None]
        seen = lower if seen is None else seen & lower
    return None if seen is None else jnp.where(seen, 0.0, jnp.finfo(jnp.float32).min / 2)


def _plain(q: Array, k: Array, v: Array, mask: Array | None, causal: bool) -> Array:
    scores = jnp.einsum("bqhd,bkhd->bhqk", q * q.shape[-1] ** -0.5, k, preferred_element_type=jnp.float32)
    bias = _bias(q.shape[1], k.shape[1], mask, causal)
    scores = scores if bias is None else scores + bias
    weights = jnp.exp(scores - lax.stop_gradient(scores.max(-1, keepdims=True)))
    total = weights.sum(-1).transpose(0, 2, 1)[..., None]  # dividing n x d numbers is cheaper than n x m
    out = jnp.einsum("bhqk,bkhd->bqhd", weights.astype(v.dtype), v, preferred_element_type=jnp.float32)
    return (out / total).astype(q.dtype)


def _blocked(q: Array, k: Array, v: Array, mask: Array | None, causal: bool) -> Array:
    b, n, h, d = q.shape
    size = next(s for s in range(min(_BLOCK, n), 0, -1) if n % s == 0)
    bias = _bias(n, k.shape[1], mask, causal)
    bias = jnp.zeros((1, 1, 1, 1)) if bias is None else bias
    bias = jnp.broadcast_to(bias, (b, 1, n if causal else 1, bias.shape[-1]))

    @jax.checkpoint  # the backward pass makes a block's scores again instead of keeping all of them
    def block(q: Array, k: Array, v: Array, bias: Array) -> Array:
        scores = jnp.matmul(q, k.T, preferred_element_type=jnp.float32) + bias
        weights = jnp.exp(scores - lax.stop_gradient(scores.max(-1, keepdims=True)))
        total = weights.sum(-1, keepdims=True)
        return (jnp.matmul(weights.astype(v.dtype), v, preferred_element_type=jnp.float32) / total).astype(q.dtype)

    def head(args: tuple[Array, ...]) -> Array:
        q, k, v, example = args  # q [blocks, size, d]
        rows = bias[example, 0]
        if causal:
            return lax.map(lambda a: block(a[0], k, v, a[1]), (q, rows.reshape(n // size, size, -1)))
        return lax.map(lambda q: block(q, k, v, rows), q)

    def heads(x: Array) -> Array:
        return x.transpose(0, 2, 1, 3).reshape(b * h, x.shape[1], d)

    blocks = heads(q * d**-0.5).reshape(b * h, n // size, size, d)
    out = lax.map(head, (blocks, heads(k), heads(v), jnp.repeat(jnp.arange(b), h)))
    return out.reshape(b, h, n, d).transpose(0, 2, 1, 3)


@functools.cache
def _cudnn_can_be_traced() -> bool:
    """Returns whether JAX finds cuDNN here; it asks for it when it traces the call, even for another machine."""
    x = jax.ShapeDtypeStruct((1, 8, 1, 64), jnp.bfloat16)
    try:
        jax.eval_shape(functools.partial(jax.nn.dot_product_attention, implementation="cudnn"), x, x, x)
    except RuntimeError:
        return False
    return True


def _cudnn(q: Array, k: Array, v: Array, mask: Array | None, causal: bool) -> Array:
    n, m = q.shape[1], k.shape[1]
    # JAX asks for even lengths wherever there is a gradient. A mask hides the key that is added, or the causal order
    # does; where there is neither, the number of keys is passed.
    q, k, v = (jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, 0), (0, 0))) for x in (q, k, v))
    mask = None if mask is None else jnp.pad(mask, ((0, 0), (0, m % 2)))

    def kernel(q: Array, k: Array, v: Array, mask: Array | None) -> Array:
        bias = None if mask is None else jnp.broadcast_to(mask[:, None, None], (len(q), 1, q.shape[1], k.shape[1]))
        hides_padding = mask is None and m % 2 and not (causal and n <= m)
        keys = jnp.full(len(q), m, jnp.int32) if hides_padding else None
        return jax.nn.dot_product_attention(
            q, k, v, mask=bias, is_causal=causal, key_value_seq_lengths=keys, implementation="cudnn"
        )

    return _on_mesh(kernel, q, k, v, mask)[:, :n]


def _flash(q: Array, k: Array, v: Array, mask: Array | None, causal: bool) -> Array:
    from jax.experimental.pallas.ops.tpu import flash_attention as tpu

    assert mask is None
    sides = ("q", "k_major", "k", "q_major_dkv", "k_major_dkv", "k_dkv", "q_dkv", "k_major_dq", "k_dq", "q_dq")
    sizes = tpu.BlockSizes(block_b=1, **{f"block_{side}": _BLOCK for side in sides})

    def kernel(q: Array, k: Array, v: Array, mask: None) -> Array:
        q, k, v = (x.transpose(0, 2, 1, 3) for x in (q, k, v))
        out = tpu.flash_attention(q, k, v, causal=causal, sm_scale=q.shape[-1] ** -0.5, block_sizes=sizes)
        return out.transpose(0, 2, 1, 3)

    return _on_mesh(kernel, q, k, v, None)


def _on_mesh(kernel: Callable[..., Array], q: Array, k: Array, v: Array, mask: Array | None) -> Array:
    """Maps a kernel over the mesh in force: examples over data and fsdp, heads over tensor.

    An axis of the mesh that does not divide them works on copies.
    """
    mesh = jax.sharding.get_abstract_mesh()
    free = [name for name, kind in zip(mesh.axis_names, mesh.axis_types, strict=True) if kind == AxisType.Auto]
    if not free:
        return kernel(q, k, v, mask)
    examples: tuple[str, ...] = ()
    for name in ("data", "fsdp"):
        if name in free and q.shape[0] % math.prod(mesh.shape[one] for one in (*examples, name)) == 0:
            examples = (*examples, name)
    heads = "tensor" if "tensor" in free and q.shape[2] % mesh.shape["tensor"] == 0 else None
    each = P(examples, None, heads)
    specs = (each, each, each, None if mask is None else P(examples))
    return jax.shard_map(kernel, in_specs=specs, out_specs=each, axis_names=set(free), check_vma=False)(q, k, v, mask)


_KERNELS = {"plain": _plain, "blocked": _blocked, "cudnn": _cudnn, "flash": _flash}


class Attention(nn.Module):
    """Self-attention, or cross-attention over `context`: the projections around `attention`.

    Attributes:
      heads: number of heads.
      head_dim: width of each.
      out_dim: width of the output; None means the input's.
      bias: whether q, k and v have a bias (`out` always has one).
      dtype: dtype of the computation.
    """

    heads: int
    head_dim: int
    out_dim: int | None = None
    bias: bool = False
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b n c"],
        context: Float[Array, "b m e"] | None = None,
        mask: Bool[Array, "b m"] | None = None,
        causal: bool = False,
        picture: Float[Array, "b p f"] | None = None,
        picture_weight: Float[Array, " b"] | None = None,
    ) -> Float[Array, "b n o"]:
        """Attends; also to the tokens of `picture` with keys and values of their own, weighted by `picture_weight`."""
        dense = functools.partial(nn.Dense, dtype=self.dtype)
        width = self.heads * self.head_dim
        source = x if context is None else context
        q, k, v = (
            dense(width, use_bias=self.bias, name=name)(y).reshape(*y.shape[:2], self.heads, self.head_dim)
            for name, y in (("q", x), ("k", source), ("v", source))
        )
        out = attention(q, k, v, mask=mask, causal=causal)
        if picture is not None and picture_weight is not None:
            k, v = (
                dense(width, use_bias=False, name=name)(picture).reshape(*picture.shape[:2], self.heads, self.head_dim)
                for name in ("k_picture", "v_picture")
            )
            out = out + picture_weight.astype(out.dtype)[:, None, None, None] * attention(q, k, v)
        return dense(self.out_dim or x.shape[-1], name="out")(out.reshape(*x.shape[:2], width))
