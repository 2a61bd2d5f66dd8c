"""Text and then picture tokens: the weighted loss, what is left out, what is drawn, whose codes, what is refused."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import keys, pictures, randomised

from jaxdiff.data.source import DataConfig
from jaxdiff.models.autoencoder_dvae import DVAEConfig
from jaxdiff.models.autoencoder_kl import AutoencoderConfig
from jaxdiff.models.autoencoder_vq import VQConfig
from jaxdiff.models.text_image_transformer import TextImageTransformerConfig
from jaxdiff.models.unet import UNetConfig
from jaxdiff.pretrained.read import Component
from jaxdiff.pretrained.rules import autoencoder, dvae
from jaxdiff.pretrained.write import write_component
from jaxdiff.tasks import text_to_tokens
from jaxdiff.tasks.text_to_tokens import PreviewConfig
from jaxdiff.training import Known, OptimizerConfig, Variables

DVAE = DVAEConfig(channels=(4, 4), layers=1, codes=5, embedding=4)
VQ = VQConfig(channels=(4, 4), layers=1, groups=2, latent_channels=3, mid_attention=False, codes=6, width=2)
KL = AutoencoderConfig(channels=(4, 4), layers=1, groups=2, latent_channels=3, mid_attention=False)
NET = TextImageTransformerConfig(width=8, layers=2, heads=2, window=3)
CONFIG = text_to_tokens.Config(net=NET, length=6, vocabulary=259)
DATA = DataConfig(size=4)


def part(net):
    made, kind = (dvae, dvae.KIND) if isinstance(net, DVAEConfig) else (autoencoder, "AutoencoderKL")
    kind = "VQModel" if isinstance(net, VQConfig) else kind
    shapes = jax.eval_shape(net.build().init, jax.random.key(0), jnp.zeros((1, 4, 4, 3)))["params"]
    return Component(kind, made.published(net), net, randomised(shapes))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Autoencoders in folders, as `jaxdiff convert` writes them."""
    at = tmp_path_factory.mktemp("autoencoders")
    for name, net in (("dvae", DVAE), ("vq", VQ), ("kl", KL)):
        write_component(part(net), at / name)
    return at


@pytest.fixture
def assets(folder, tmp_path):
    return dataclasses.replace(CONFIG, autoencoder=str(folder / "dvae")).assets(tmp_path, DATA, new=True)


def start(config, assets):
    task = config.task(assets)
    frozen = task.load(lambda shapes: jax.tree.map(lambda x: jax.devices()[0], shapes))
    row = task.example({"image": np.zeros((4, 4, 3), np.uint8), "caption": "a cat"}, None)
    batch = {"image": pictures(3, 4), "tokens": jnp.stack([row["tokens"]] * 3)}
    shapes = jax.eval_shape(task.init, jax.random.key(0), frozen, batch)
    return task, jax.tree.map(lambda x: jnp.zeros(x.shape), shapes.params), frozen, batch


def test_the_loss_weighs_text_and_codes_and_leaves_captions_out(assets):
    task, zero, frozen, batch = start(CONFIG, assets)
    known = Known(frozen, {}, {}, 0)
    loss = jax.jit(lambda params, b, k: CONFIG.task(assets).loss(params, known, b, k))
    value, told, _ = loss(zero, batch, keys(3))
    text, image = np.log(259 + 6), np.log(5)
    assert (float(told["text"]), float(told["image"])) == pytest.approx((text, image), rel=1e-5)
    assert float(value) == pytest.approx(text / 8 + image * 7 / 8, rel=1e-5)
    params = randomised(zero)
    always, never = (
        jax.jit(
            lambda b, k, drop=drop: dataclasses.replace(CONFIG, drop=drop).task(assets).loss(params, known, b, k)[0]
        )
        for drop in (1.0, 0.0)
    )
    empty = {**batch, "tokens": jnp.stack([jnp.asarray(assets.vocabulary.encode("", 6))] * 3)}
    assert float(always(batch, keys(3))) == pytest.approx(float(never(empty, keys(3))), rel=1e-6)
    assert abs(float(always(batch, keys(3))) - float(never(batch, keys(3)))) > 1e-3
    held = jax.jit(lambda b, k: task.held_out(params, known, b, k)[0])
    assert float(held(batch, keys(3))) == pytest.approx(float(never(batch, keys(3))), rel=1e-6)


def test_what_is_drawn_is_decoded_and_another_call_compiles_nothing(assets):
    _, zero, frozen, _ = start(CONFIG, assets)
    pipe = CONFIG.pipeline(assets, Variables(randomised(zero), frozen))
    first = pipe(["cat", "dog"], key=jax.random.key(0), guidance=2.0)
    assert first.shape == (2, 4, 4, 3)
    assert pipe.compiled() == 1
    again = pipe(["cat", "fox"], key=jax.random.key(0), guidance=3.0, top_k=2, top_p=0.9, temperature=0.7)
    assert pipe.compiled() == 1
    assert (again != first).any()
    with pytest.warns(UserWarning, match="does not see 'osaur'"):
        pipe(["dinosaur"] * 2, key=jax.random.key(0))
    codes = np.stack(np.meshgrid(*[np.arange(5)] * 4, indexing="ij"), -1).reshape(-1, 2, 2)
    every = DVAE.build().apply({"params": frozen}, jnp.asarray(codes), method="picture")
    levels = np.clip(np.round((np.asarray(every) + 1) * 127.5), 0, 255)
    distance = np.abs(first.astype(float)[:, None] - levels[None]).max((2, 3, 4)).min(1)
    assert distance.max() <= 1, "each is the picture of some codes"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"temperature": 0.0}, "temperature is 0.0: expected a number above 0"),
        ({"top_k": -1}, "top_k is -1"),
        ({"top_p": 1.5}, "top_p is 1.5"),
        ({"guidance": float("inf")}, "guidance is inf"),
        ({"steps": 3}, "there is no option 'steps': expected guidance, temperature, top_k, top_p"),
    ],
)
def test_a_call_that_makes_no_sense_is_refused(assets, fields, message):
    pipe = CONFIG.pipeline(assets, Variables({}, {}))
    with pytest.raises(ValueError, match=message):
        pipe("cat", key=jax.random.key(0), **fields)


def test_codes_of_a_vq_autoencoder_serve_and_those_of_none_do_not(folder, tmp_path):
    config = dataclasses.replace(CONFIG, autoencoder=str(folder / "vq"))
    made = config.assets(tmp_path / "vq", DATA, new=True)
    assert (made.part.config.codes, made.part.kind) == (6, "VQModel")
    for path, message in (
        (folder / "kl", "has no codes"),
        ("", "autoencoder is empty"),
        (folder / "none", "there is no"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            dataclasses.replace(CONFIG, autoencoder=str(path)).assets(tmp_path / "other", DATA, new=True)
    with pytest.raises(ValueError, match="must be multiples of 2"):
        config.assets(tmp_path / "vq", DataConfig(size=5))


def test_codes_of_another_autoencoder_are_refused(folder, tmp_path):
    config = dataclasses.replace(CONFIG, autoencoder=str(folder / "dvae"))
    config.assets(tmp_path, DATA, new=True)
    config.assets(tmp_path, DATA)
    other = part(DVAE)
    changed = jax.tree.map(lambda x: x + 1e-3, other.params)
    shutil.rmtree(tmp_path / "autoencoder")
    write_component(dataclasses.replace(other, params=changed), tmp_path / "autoencoder")
    with pytest.raises(ValueError, match="has codes of another autoencoder"):
        config.assets(tmp_path, DATA)
    shutil.rmtree(tmp_path / "autoencoder")
    with pytest.raises(FileNotFoundError, match="lacks autoencoder or"):
        config.assets(tmp_path, DATA)


def test_another_vocabulary_is_refused(folder, tmp_path):
    config = dataclasses.replace(CONFIG, autoencoder=str(folder / "dvae"))
    config.assets(tmp_path, DATA, new=True)
    told = json.loads((tmp_path / "vocabulary.json").read_text())
    (tmp_path / "vocabulary.json").write_text(json.dumps({**told, "merges": [[3, 4]]}))
    with pytest.raises(ValueError, match=r"has 260 ids and task\.vocabulary is 259"):
        config.assets(tmp_path, DATA)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"net": UNetConfig()}, "task.net is a UNetConfig: expected text_image_transformer"),
        ({"length": 1}, "task.length is 1"),
        ({"vocabulary": 100}, "vocabulary size 100"),
        ({"drop": 1.5}, "task.drop is 1.5"),
        ({"text_weight": -0.1}, "task.text_weight is -0.1"),
        ({"preview": PreviewConfig(temperature=0.0)}, "temperature is 0.0"),
    ],
)
def test_what_does_not_fit_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **fields).check(DATA, OptimizerConfig())
