"""Networks that see earlier parts alone: by gradients, and drawn with what is kept as without."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import keys, randomised

from jaxdiff.data.source import DataConfig
from jaxdiff.metrics import speed
from jaxdiff.models import made, ordered
from jaxdiff.models.image_transformer import ImageTransformerConfig
from jaxdiff.models.made import MadeConfig
from jaxdiff.models.pixelcnn import PixelCNNConfig, mask
from jaxdiff.models.pixelrnn import Lstm, PixelRNNConfig, skew, unskew
from jaxdiff.models.unet import UNetConfig
from jaxdiff.tasks import autoregressive
from jaxdiff.training import OptimizerConfig

SHAPE = (2, 3, 3)
PIXELCNN = PixelCNNConfig(width=6, layers=3, reach=1, head=36)
MADE = MadeConfig(hidden=(68, 68))
BACKWARDS = dataclasses.replace(MADE, order=tuple(range(17, -1, -1)))
TRANSFORMER = ImageTransformerConfig(width=8, layers=2, heads=2)
CASES = {"channels": (PIXELCNN, 3), "pixels": (PIXELCNN, 1), "made": (MADE, 3), "backwards": (BACKWARDS, 3)}
ROW = PixelRNNConfig(width=6, layers=2, reach=1, head=36)
DIAGONAL = dataclasses.replace(ROW, family="diagonal")
CASES |= {"transformer": (TRANSFORMER, 3), "row": (ROW, 3), "diagonal": (DIAGONAL, 3)}


def network(net, groups):
    module = net.make(SHAPE, groups, 2, 2)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, *SHAPE)), jnp.zeros(1, jnp.int32))
    return module, randomised(shapes["params"])


@pytest.mark.parametrize("case", CASES)
def test_outputs_see_the_parts_before_them_all_of_them_and_no_other(case):
    net, groups = CASES[case]
    module, params = network(net, groups)
    x = np.random.default_rng(0).standard_normal((8, *SHAPE)).astype(np.float32)  # of one, a unit may be off
    out = lambda x: module.apply({"params": params}, x[None], jnp.zeros(1, jnp.int32))
    parts = 6 * groups
    seen = np.abs(jax.jit(jax.vmap(jax.jacobian(out)))(x)).reshape(8, parts, 2, parts, -1).sum((0, 2, 4)) > 0
    places = np.argsort(net.order) if case == "backwards" else np.arange(parts)
    before = places[None] < places[:, None]
    assert not (seen & ~before).any()
    if case in ("channels", "pixels"):  # three layers that reach a pixel far: the blind spots are known
        rows, columns = np.divmod(np.arange(parts) // groups, 3)
        near = (np.abs(rows[:, None] - rows[None]) <= 1) & (np.abs(columns[:, None] - columns[None]) <= 1)
        before &= near
    if case == "row":  # what lies above spreads by a column a row (figure 2)
        rows, columns = np.divmod(np.arange(parts) // groups, 3)
        before &= columns[None] - columns[:, None] <= rows[:, None] - rows[None]
    assert seen[before].all()


@pytest.mark.parametrize(("net", "groups"), [(PIXELCNN, 1), (PIXELCNN, 3), (TRANSFORMER, 3), (ROW, 3)])
def test_pictures_drawn_with_what_is_kept_are_those_of_the_whole_network(net, groups):
    module, params = network(net, groups)
    label, width = jnp.array([0, 1, 1]), 3 // groups

    def pick(key, out):
        return jnp.where(jax.random.uniform(key, (width,)) < jax.nn.sigmoid(out[:1]), 1.0, -1.0)

    args = (module, params, keys(3), label, SHAPE, pick)
    kept = jax.jit(lambda: net.sample(*args))()
    plain = jax.jit(lambda: ordered.draw(module, params, keys(3), label, SHAPE, pick, np.arange(6 * groups)))()
    np.testing.assert_array_equal(kept, plain)
    assert (kept[1] != kept[2]).any()


@pytest.mark.parametrize("net", [PIXELCNN, ROW])
def test_the_work_of_drawing_is_linear_in_the_rows_where_things_are_kept(net):
    """Counted in what is traced: of the whole network for each part it is the square."""
    module, params = network(net, 3)
    pick = lambda key, out: out[:1]

    def flops(rows, draw):
        draws = jax.random.split(jax.random.key(0), 1)
        return speed.work(jax.make_jaxpr(lambda: draw(draws, (rows, 3, 3)))()).flops

    kept = lambda draws, shape: net.sample(module, params, draws, jnp.zeros(1, jnp.int32), shape, pick)
    order = lambda shape: np.arange(3 * shape[0] * shape[1])
    plain = lambda draws, shape: ordered.draw(module, params, draws, jnp.zeros(1, jnp.int32), shape, pick, order(shape))
    assert flops(8, kept) == pytest.approx(2 * flops(4, kept), rel=1e-6)
    assert flops(8, plain) == pytest.approx(4 * flops(4, plain), rel=1e-6)


def test_skewed_rows_have_diagonals_in_their_columns_and_come_back():
    """Figure 4 of PixelRNN: of 3x2 pixels, column d holds those whose row and column sum to d."""
    x = jnp.arange(6.0).reshape(1, 3, 2, 1) + 1
    np.testing.assert_array_equal(skew(x)[0, :, :, 0], [[1, 2, 0, 0], [0, 3, 4, 0], [0, 0, 5, 6]])
    np.testing.assert_array_equal(unskew(skew(x)), x)


def test_an_lstm_of_one_unit_is_the_published_equation():
    """Two rows of one pixel: the gates in the order o, f, i, g, by hand."""
    told = np.random.default_rng(0).standard_normal((1, 2, 1, 4)).astype(np.float32)
    module = Lstm(1, 1, (0,))
    kernel = np.random.default_rng(1).standard_normal((1, 1, 4)).astype(np.float32)
    got = module.apply({"params": {"kernel": jnp.asarray(kernel)}}, jnp.asarray(told))
    sigmoid = lambda x: 1 / (1 + np.exp(-x))
    h = c = 0.0
    for n in range(2):
        o, f, i, g = told[0, n, 0] + kernel[0, 0] * h
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        assert float(got[0, n, 0, 0]) == pytest.approx(h, rel=1e-5)


def test_masks_are_the_published_ones():
    """Of three channels in one unit each: A lets a part see those before it, B itself too (figure 4 of PixelRNN)."""
    np.testing.assert_array_equal(mask(3, 3, 3, True), [[0, 1, 1], [0, 0, 1], [0, 0, 0]])
    np.testing.assert_array_equal(mask(3, 6, 3, False), np.repeat([[1, 1, 1], [0, 1, 1], [0, 0, 1]], 2, 1))
    first, last = made.masks(np.array([2, 0, 1]), (2,), 1, 1)
    np.testing.assert_array_equal(first, [[0, 0], [1, 1], [0, 1]])  # degrees 0 and 1 of the hidden units
    np.testing.assert_array_equal(last, [[1, 0, 1], [1, 0, 0]])


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (dataclasses.replace(MADE, order=(0, 0, 2)), "order is .0, 0, 2.: expected each of 0 to 2 once"),
        (dataclasses.replace(MADE, order=(1, 0)), "expected each of 0 to 47 once"),
        (dataclasses.replace(MADE, hidden=()), "hidden is"),
        (dataclasses.replace(PIXELCNN, width=4), "width is 4, which does not divide"),
        (dataclasses.replace(PIXELCNN, reach=0), "reach is 0"),
        (dataclasses.replace(PIXELCNN, dtype="int8"), "dtype is 'int8'"),
        (dataclasses.replace(TRANSFORMER, heads=3), "does not divide into 3 heads"),
        (dataclasses.replace(ROW, head=4), "head is 4, which does not divide"),
        (dataclasses.replace(ROW, layers=0), "layers is 0"),
        (UNetConfig(), "expected pixelcnn, pixelrnn, made or image_transformer"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(net, message):
    with pytest.raises(ValueError, match=message):
        autoregressive.Config(net=net).check(DataConfig(size=4), OptimizerConfig())
    for field, value in (("levels", 1), ("levels", 257), ("mixtures", 0), ("classes", -1), ("previews", -1)):
        with pytest.raises(ValueError, match=f"task.{field} is {value}: expected"):
            dataclasses.replace(autoregressive.Config(), **{field: value}).check(DataConfig(size=4), OptimizerConfig())
