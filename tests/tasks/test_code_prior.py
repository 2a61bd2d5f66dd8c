"""A prior over the codes of a VQ autoencoder: bits a code, pictures that decode what is drawn, what does not fit."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import keys, pictures, randomised

from jaxdiff.data.source import DataConfig
from jaxdiff.models.autoencoder_kl import AutoencoderConfig
from jaxdiff.models.autoencoder_vq import AutoencoderVQ, VQConfig
from jaxdiff.models.pixelcnn import PixelCNNConfig
from jaxdiff.models.unet import UNetConfig
from jaxdiff.pretrained.read import Component
from jaxdiff.pretrained.rules import autoencoder as rules
from jaxdiff.pretrained.write import write_component
from jaxdiff.tasks import code_prior
from jaxdiff.training import Known, OptimizerConfig, Variables

VQ = VQConfig(channels=(4, 4), layers=1, groups=2, latent_channels=3, mid_attention=False, codes=5, width=2)
CONFIG = code_prior.Config(net=PixelCNNConfig(width=4, layers=1, reach=1, head=4), vq=VQ, previews=0)


@pytest.fixture(scope="module")
def part():
    shapes = jax.eval_shape(VQ.build().init, jax.random.key(0), jnp.zeros((1, 4, 4, 3)))["params"]
    return Component("VQModel", rules.published(VQ), VQ, randomised(shapes))


def test_the_loss_is_bits_a_code_and_what_is_drawn_is_decoded(part, tmp_path):
    write_component(part, tmp_path / "vq")
    config = dataclasses.replace(CONFIG, autoencoder=str(tmp_path / "vq"))
    assets = config.assets(tmp_path / "run", DataConfig(size=4), new=True)
    jax.tree.map(np.testing.assert_array_equal, assets.part.params, part.params)
    task = config.task(assets)
    batch = {"image": pictures(2, 4)}
    loaded = task.load(lambda shapes: jax.tree.map(lambda x: jax.devices()[0], shapes))
    start = jax.eval_shape(task.init, jax.random.key(0), loaded, batch)
    zero = jax.tree.map(lambda x: jnp.zeros(x.shape), start.params)
    loss = jax.jit(lambda params: task.loss(params, Known(loaded, {}, {}, 0), batch, keys(2))[0])
    assert loss(zero) == pytest.approx(np.log2(5), rel=1e-6)
    params = randomised(zero)
    assert abs(float(loss(params)) - np.log2(5)) > 0.01

    @jax.jit
    def draw(keys):
        return config._draw(Variables(params, loaded), {"temperature": jnp.float32(1)}, keys, None, (4, 4, 3))

    drawn = draw(keys(6))
    codes = np.stack(np.meshgrid(*[np.arange(5)] * 4, indexing="ij"), -1).reshape(-1, 2, 2)
    every = AutoencoderVQ(VQ).apply({"params": loaded}, loaded["codebook"][codes], True, method="decode")
    levels = np.clip(np.round((np.asarray(every) + 1) * 127.5), 0, 255)
    distance = np.abs(np.asarray(drawn, float)[:, None] - levels[None]).max((2, 3, 4)).min(1)
    assert distance.max() <= 1, "each is the picture of some codes"
    assert config._calls((4, 4, 3)) == 4


def test_what_does_not_fit_is_refused(part, tmp_path):
    for fields, message in (
        ({"net": UNetConfig()}, "task.net is a UNetConfig: expected pixelcnn"),
        ({"vq": AutoencoderConfig()}, "task.vq is a AutoencoderConfig: expected autoencoder_vq"),
        ({"grey": True}, "are the autoencoder's"),
    ):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(CONFIG, **fields).check(DataConfig(size=4), OptimizerConfig())
    with pytest.raises(ValueError, match="autoencoder is empty"):
        CONFIG.assets(tmp_path, DataConfig(size=4), new=True)
    write_component(part, tmp_path / "vq")
    other = dataclasses.replace(CONFIG, autoencoder=str(tmp_path / "vq"), vq=dataclasses.replace(VQ, codes=7))
    with pytest.raises(ValueError, match="holds another autoencoder than"):
        other.assets(tmp_path, DataConfig(size=4), new=True)
    with pytest.raises(FileNotFoundError):
        CONFIG.assets(pathlib.Path(tmp_path / "none"), DataConfig(size=4))
