import jax
import numpy as np
import pytest
from PIL import Image

from jaxdiff.models.autoencoder_kl import AutoencoderConfig
from jaxdiff.pipelines.autoencoder import AutoencoderPipeline, Options
from jaxdiff.pretrained.read import Component

NET = AutoencoderConfig(channels=(2, 2), layers=1, latent_channels=2, groups=1, mid_attention=False, scale=0.5)


@pytest.fixture(scope="module")
def pipe():
    shapes = jax.eval_shape(NET.build().init, jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32))["params"]
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: 0.3 * rng.standard_normal(x.shape).astype(np.float32), shapes)
    return AutoencoderPipeline(Component("AutoencoderKL", {}, NET, params), 8)


def test_pictures_go_through_the_mean_and_are_cut_as_in_training(pipe, tmp_path):
    images = np.random.default_rng(1).integers(0, 256, (2, 8, 8, 3)).astype(np.uint8)
    Image.fromarray(images[0]).save(tmp_path / "a.png")
    Image.fromarray(np.pad(images[1], ((0, 0), (3, 3), (0, 0)))).save(tmp_path / "b.png")
    files = (tmp_path / "a.png", tmp_path / "b.png")
    made = pipe(["", ""], key=jax.random.key(0), options=Options(init=files))
    np.testing.assert_array_equal(made, pipe.reconstruct(images))
    x = images.astype(np.float32) / 127.5 - 1
    y = jax.jit(lambda p, x: NET.build().apply({"params": p}, x))(pipe.part.params, x)
    np.testing.assert_array_equal(made, np.round(np.clip(np.asarray(y) * 127.5 + 127.5, 0, 255)).astype(np.uint8))


def test_noise_is_decoded_picture_by_picture(pipe):
    keys = jax.random.split(jax.random.key(3), 3)
    three, last = pipe([""] * 3, key=jax.random.clone(keys)), pipe("", key=keys[2:])
    assert three.shape == (3, 8, 8, 3)
    np.testing.assert_array_equal(three[2:], last)
    assert not np.array_equal(three[0], three[1])


def test_what_it_does_not_take_is_refused(pipe, tmp_path):
    with pytest.raises(ValueError, match="reads no prompt, and was given 'a cat'"):
        pipe(["", "a cat"], key=jax.random.key(0))
    with pytest.raises(ValueError, match="no option 'steps': an autoencoder takes init"):
        pipe("", key=jax.random.key(0), steps=3)
    with pytest.raises(OSError, match=r"none\.png"):
        pipe("", key=jax.random.key(0), init=(tmp_path / "none.png",))
    with pytest.raises(ValueError, match="both sides must be multiples of 2"):
        pipe.reconstruct(np.zeros((1, 8, 9, 3), np.uint8))
