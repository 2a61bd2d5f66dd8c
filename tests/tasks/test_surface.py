"""Points on torus and sphere: the made laws, what a trained network draws beside them, clouds as maps and files."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import randomised

from jaxdiff import experiment, loading, trainer
from jaxdiff.cli.config import read_config
from jaxdiff.cli.main import main
from jaxdiff.data import surfaces
from jaxdiff.data.source import DataConfig
from jaxdiff.models.points import PointsConfig
from jaxdiff.models.unet import UNetConfig
from jaxdiff.tasks import surface
from jaxdiff.training import OptimizerConfig

CONFIGS = pathlib.Path(__file__).parents[2] / "configs" / "spaces"
SPACES = ("torus", "sphere")


@pytest.mark.parametrize("space", SPACES)
def test_a_made_law_has_mass_one_and_its_draws_lie_as_it_says(space):
    law = surfaces.exact(space, 8)
    assert law.sum() == pytest.approx(1, abs=2e-4)
    rng = np.random.default_rng(0)
    points = np.stack([surfaces.draw(space, rng) for _ in range(4000)])
    if space == "sphere":
        np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1, atol=1e-9)
    else:
        assert np.abs(points).max() <= np.pi
    seen = surfaces.counted(space, points, 8)
    assert seen.sum() == pytest.approx(1)
    often = law > 2e-3
    chi = (4000 * (seen - law) ** 2 / law)[often].sum()
    assert chi < often.sum() + 5 * np.sqrt(2 * often.sum())


@pytest.mark.parametrize("space", SPACES)
def test_what_the_network_says_lies_along_the_surface_and_has_no_seam(space):
    config = surface.Config(net=PointsConfig(width=8, layers=1, waves=2), space=space)
    task = config.task(None)
    batch = {"point": np.stack([surfaces.draw(space, np.random.default_rng(i)) for i in range(4)]).astype(np.float32)}
    params = randomised(jax.eval_shape(task.init, jax.random.key(0), {}, batch).params)
    x, v = jnp.asarray(batch["point"]), jnp.full(4, 0.3)
    said = jax.jit(lambda x: config.score(params, x, v))
    if space == "sphere":
        np.testing.assert_allclose((said(x) * x).sum(1), 0, atol=1e-4)
    else:
        np.testing.assert_allclose(said(x + 2 * np.pi), said(x), atol=1e-3)  # in float32, of angles up to 12
    assert np.abs(said(x)).max() > 0.1


@pytest.mark.heavy
@pytest.mark.parametrize("space", SPACES)
def test_a_trained_network_draws_the_law(space, tmp_path):
    """By total variation over 64 cells, beside that of as many draws from the law itself, and of even points."""
    config = read_config(CONFIGS / f"{space}.py")
    config = dataclasses.replace(
        config,
        task=dataclasses.replace(config.task, previews=0),
        optimizer=dataclasses.replace(config.optimizer, warmup=20),
        ema=0.99,
        train=dataclasses.replace(config.train, steps=1200),
        checkpoint=dataclasses.replace(config.checkpoint, every=1200),
    )
    trainer.run(config, tmp_path)
    _, cloud = loading.load(tmp_path).both([""], key=jax.random.key(1))
    law, rng = surfaces.exact(space, 8), np.random.default_rng(0)
    apart = lambda points: np.abs(surfaces.counted(space, points, 8) - law).sum() / 2
    own = apart(np.stack([surfaces.draw(space, rng) for _ in range(len(cloud[0]))]))
    even = np.abs(1 / 64 - law).sum() / 2
    print(space, "drawn", apart(cloud[0]), "own", own, "even", even)
    assert apart(cloud[0]) < 0.1 * even + own


@pytest.mark.heavy
def test_a_run_draws_clouds_that_maps_show(tmp_path, capsys):
    config = read_config(CONFIGS / "sphere.py", small=True)
    experiment.check(read_config(CONFIGS / "torus.py"))
    trainer.run(config, tmp_path / "run")
    assert (tmp_path / "run" / "samples" / "maps" / "000006.png").is_file()
    main(["sample", "--model", str(tmp_path / "run"), "--out", str(tmp_path / "a.png"), "--num", "2"])
    assert f"wrote {tmp_path / 'a' / '1.npy'}" in capsys.readouterr().out
    cloud = np.load(tmp_path / "a" / "1.npy")
    assert cloud.shape == (64, 3)
    np.testing.assert_allclose(np.linalg.norm(cloud, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"net": UNetConfig()}, "task.net is a UNetConfig: expected points"),
        ({"net": PointsConfig(waves=0)}, "points: waves is 0"),
        ({"steps": 1}, "task.steps is 1"),
        ({"points": 0}, "task.points is 0"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        surface.Config(**fields).check(DataConfig(name="synthetic"), OptimizerConfig())
    with pytest.raises(ValueError, match="is 'openmoji', pictures"):
        surface.Config().check(DataConfig(), OptimizerConfig())
