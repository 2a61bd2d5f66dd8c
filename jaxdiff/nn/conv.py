"""Convolution, as XLA's own or as matrix products where those are faster.

XLA's CPU convolution reads its weights slowly when there are few output positions (the 8x8 levels of Stable
Diffusion's U-Net): there the patches are gathered and multiplied (im2col), which is 2 to 3 times faster. Where there
are many positions of many channels, Winograd's form is faster than either.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxdiff.nn.target import by_platform
from jaxdiff.nn.winograd import winograd

# on a CPU; positions are those of the output, over the batch:
_SOME, _DEEP = 400, 64  # positions, and input and output channels, from which Winograd's form wins,
_MANY = 65536  # where positions x channels are as many
_NARROW, _MORE = 128, 3072  # fewer output channels and more positions are faster in 4 to 8 pieces of the batch
_FEW, _WIDE = 1024, 512  # of the rest: positions up to which, and input channels from which, im2col wins

direct_convolutions = jax.make_user_context(False)
"""`with direct_convolutions(True)` no form saves products, Winograd's or `resnet.Upsample`'s: what is traced has all.

For counting the work that an architecture asks for. It is part of the key of JAX's caches, so that a function which was
traced before is traced again.
"""


class Conv(nn.Module):
    """A square convolution over [b, h, w, c].

    Attributes:
      features: output channels.
      size: side of the kernel.
      stride: step between outputs.
      padding: zeros on every side, or ((top, bottom), (left, right)); None keeps h and w at stride 1.
      zero: start from zero weights (the last layer of a residual branch).
    """

    features: int
    size: int = 3
    stride: int = 1
    padding: int | tuple[tuple[int, int], tuple[int, int]] | None = None
    bias: bool = True
    zero: bool = False
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b i j o"]:
        init = nn.initializers.zeros if self.zero else nn.initializers.lecun_normal()
        kernel = self.param("kernel", init, (self.size, self.size, x.shape[-1], self.features))
        pad = self.size // 2 if self.padding is None else self.padding
        pad = ((pad, pad), (pad, pad)) if isinstance(pad, int) else pad
        y = conv(x.astype(self.dtype), kernel.astype(self.dtype), self.stride, pad)
        if self.bias:
            y = y + self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)[None, None, None]
        return y


def conv(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "k l c o"],
    stride: int = 1,
    padding: tuple[tuple[int, int], tuple[int, int]] = ((1, 1), (1, 1)),
) -> Float[Array, "b i j o"]:
    """Convolves x with kernel, in the form that is fast for these shapes on this platform."""
    if kernel.shape[:2] == (1, 1) and stride == 1 and padding == ((0, 0), (0, 0)):
        return x @ kernel[0, 0]
    form = lambda function: functools.partial(function, stride, padding)
    return by_platform(x, kernel, cpu=form(_fast_on_cpu), default=form(_conv))


def _fast_on_cpu(stride: int, padding: tuple[tuple[int, int], ...], x: Array, kernel: Array) -> Array:
    k, l, c, o = kernel.shape
    h = (x.shape[1] + sum(padding[0]) - k) // stride + 1
    w = (x.shape[2] + sum(padding[1]) - l) // stride + 1
    positions = x.shape[0] * h * w
    same = (k, l, stride) == (3, 3, 1) and padding == ((1, 1), (1, 1)) and not direct_convolutions.value
    many = positions >= _SOME and min(c, o) >= _DEEP and positions * min(c, o) >= _MANY
    if same and h % 4 == w % 4 == 0 and many and x.dtype == jnp.float32:
        # a batch that is split over devices is not split again, which would move it between them
        whole = o >= _NARROW or positions < _MORE or jax.sharding.get_abstract_mesh().size > 1
        return winograd(x, kernel, 1 if whole else min(x.shape[0], max(4, positions // 2048), 8))
    if positions <= _FEW and c >= _WIDE:
        x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
        ends = (h - 1) * stride + 1, (w - 1) * stride + 1
        taps = [x[:, i : i + ends[0] : stride, j : j + ends[1] : stride] for i in range(k) for j in range(l)]
        patches = jnp.concatenate(taps, -1).reshape(-1, k * l * c)
        return (patches @ kernel.reshape(-1, o)).reshape(x.shape[0], h, w, o)
    return _conv_cpu(stride, padding, x, kernel)


def _conv(stride: int, padding: tuple[tuple[int, int], ...], x: Array, kernel: Array) -> Array:
    dims = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=dims)


_conv_cpu = jax.custom_jvp(_conv, nondiff_argnums=(0, 1))


@_conv_cpu.defjvp
def _conv_jvp(stride: int, padding: tuple[tuple[int, int], ...], primals: tuple, tangents: tuple) -> tuple:
    """Passes the input, and the gradient of the output, through memory.

    The kernel's gradient needs both transposed. XLA would fuse whatever made them into the transpose and compute it
    again there, at a stride, ten times as slowly.
    """
    x, kernel = _stored(primals[0]), primals[1]
    y = _conv_cpu(stride, padding, x, kernel)
    tangent = _conv(stride, padding, tangents[0], kernel) + _conv(stride, padding, x, tangents[1])
    return y, _stored(tangent)


def _stored(x: Array) -> Array:
    """Passes x through a loop, across whose border XLA fuses nothing.

    XLA drops `optimization_barrier` on CPU too early.
    """
    parts = 2 if x.shape[0] % 2 == 0 else 1
    return lax.map(lambda part: part * 1.0, x.reshape(parts, -1, *x.shape[1:])).reshape(x.shape)
