"""Diffusion of captions: symbols there and back, the bound of a network that knows nothing, texts that are drawn."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import keys, randomised

from jaxdiff import experiment, trainer
from jaxdiff.cli.config import read_config
from jaxdiff.cli.main import main
from jaxdiff.data.source import DataConfig
from jaxdiff.models.token_transformer import TokenTransformerConfig
from jaxdiff.models.unet import UNetConfig
from jaxdiff.tasks import text_diffusion
from jaxdiff.tasks.text_diffusion import LEVELS, decode, encode
from jaxdiff.training import Known, OptimizerConfig, Variables

CONFIGS = pathlib.Path(__file__).parents[2] / "configs" / "text"
NET = TokenTransformerConfig(width=8, layers=1, heads=2)
SMALL = text_diffusion.Config(net=NET, length=6, steps=3, previews=0)


def test_texts_come_back_and_what_has_no_symbol_is_a_space():
    assert decode(encode("Cat Face", 12)) == "cat face"
    assert decode(encode("naïve\ncat", 12)) == "na ve cat"
    assert decode(encode("a long caption", 6)) == "a long"
    assert encode("ab", 4).tolist() == [2, 3, 0, 0]


@pytest.mark.parametrize("process", ["masked", pytest.param("multinomial", marks=pytest.mark.heavy)])
def test_a_network_that_knows_nothing_needs_all_bits_and_what_is_drawn_are_texts(process, tmp_path):
    """Its masked bound is log2 of the symbols in the mean; the multinomial one is no less than that."""
    config = dataclasses.replace(SMALL, process=process)
    task = config.task(None)
    row = task.example({"caption": "cat"}, np.random.default_rng(0))
    batch = {"text": np.repeat(row["text"][None], 600, 0)}
    start = jax.eval_shape(task.init, jax.random.key(0), {}, batch)
    zero = jax.tree.map(lambda x: jnp.zeros(x.shape), start.params)
    bits = jax.jit(lambda draws: task.loss(zero, Known({}, {}, {}, 0), batch, draws)[0])(keys(600))
    if process == "masked":  # the deviation of an estimate is near its mean, for a caption of six
        assert bits == pytest.approx(np.log2(LEVELS), rel=0.15)
    else:
        assert np.log2(LEVELS) - 0.1 < bits < 12
    pipe = config.pipeline(None, Variables(randomised(zero)))
    images, symbols = pipe.both([""] * 8, key=jax.random.key(1))
    assert images.shape == (8, 14, 46, 3)
    assert symbols.shape == (8, 6)
    assert (symbols >= 0).all()
    assert (symbols < LEVELS).all()
    (path,) = pipe.write(tmp_path / "texts.png", symbols)
    assert path == tmp_path / "texts.txt"
    texts = path.read_text().split("\n")
    assert texts == [*map(decode, symbols), ""]
    dark = (images < 128).any((1, 2, 3))
    assert dark.tolist() == [bool(text.strip()) for text in texts[:-1]]


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["masked", "multinomial"])
def test_every_config_trains_and_shows_and_draws_texts(name, tmp_path, capsys):
    path = CONFIGS / f"text_{name}.py"
    experiment.check(read_config(path))
    config = read_config(path, small=True)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, name="synthetic"))
    trainer.run(config, tmp_path)
    assert (tmp_path / "samples" / "texts" / "000006.png").is_file()
    main(["sample", "--model", str(tmp_path), "--out", str(tmp_path / "a.png"), "--num", "3", "--temperature", "0.5"])
    assert f"wrote {tmp_path / 'a.txt'}" in capsys.readouterr().out
    assert len((tmp_path / "a.txt").read_text().split("\n")) == 4


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"net": UNetConfig()}, "task.net is a UNetConfig: expected token_transformer"),
        ({"net": dataclasses.replace(NET, heads=3)}, "does not divide into 3 heads"),
        ({"length": 0}, "task.length is 0"),
        ({"steps": 1}, "task.steps is 1"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **fields).check(DataConfig(), OptimizerConfig())
