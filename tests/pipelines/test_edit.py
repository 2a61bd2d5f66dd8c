"""Enlarging, inversion, and walks between noises."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pipelines import small

from jaxdiff.pipelines import edit, program


@pytest.fixture(scope="module")
def pipe():
    return small.pipeline(small.TINY)


@pytest.mark.slow
def test_inversion_finds_the_noise_of_a_picture(pipe):
    image, errors = small.picture("image"), {}
    for steps in (8, 32):
        options = {"source": "a dog", "key": jax.random.key(0), "steps": steps, "guidance": None}
        _, back = edit.invert_and_edit(pipe, image, "a dog", **options)
        known = program.encode(pipe.model, pipe.params, jnp.float32(image) / 127.5 - 1) * pipe.model.nets["vae"].scale
        errors[steps] = np.abs(back - known).mean() / np.abs(known).mean()
    # first order: a quarter of the step, about a quarter of the error
    assert errors[32] < 0.5 * errors[8]
    assert errors[32] < 0.1
    made, _ = edit.invert_and_edit(pipe, image, "a cat", source="a dog", key=jax.random.key(0), steps=8)
    assert made.shape == image.shape


def test_enlarged_pictures_are_those_that_were_made(pipe):
    """At no strength to speak of the second pass changes little, and the first is seen in it."""
    options = {"steps": 20, "sampler": "ddim"}
    pixels, latents = edit.hires(
        pipe, small.PROMPTS, key=jax.random.key(0), scale=1.375, upscale_strength=0.05, **options
    )
    assert pixels.shape == (2, 22, 22, 3)
    _, first = pipe(small.PROMPTS, key=jax.random.key(0), latents=True, **options)
    wanted = np.asarray(jax.image.resize(first, latents.shape, "bilinear"))
    match = np.corrcoef(latents.ravel(), wanted.ravel())[0, 1]
    assert match > 0.95


def test_the_great_circle():
    a, b = jax.random.normal(jax.random.key(0), (2, 32, 32, 4))
    np.testing.assert_allclose(edit.slerp(a, b, 0.0), a, atol=1e-5)
    np.testing.assert_allclose(edit.slerp(a, b, 1.0), b, atol=1e-5)
    np.testing.assert_allclose(edit.slerp(a, a, 0.3), a, atol=1e-5)
    middle = edit.slerp(a, b, 0.5)
    assert float(middle.std()) == pytest.approx(1, abs=0.02)  # the straight line would have 0.7
    x, y = jnp.array([1.0, 0.0]), jnp.array([0.0, 2.0])
    np.testing.assert_allclose(edit.slerp(x, y, 1 / 3), [np.cos(np.pi / 6), 2 * np.sin(np.pi / 6)], rtol=1e-5)


def test_a_walk_includes_its_ends(pipe):
    keys = jax.random.split(jax.random.key(0), 2)
    noises = edit.between(*pipe.noise(keys), 5)
    assert noises.shape == (5, 8, 8, 4)
    np.testing.assert_allclose(noises[[0, -1]], pipe.noise(keys), atol=1e-5)
    with pytest.raises(ValueError, match="a walk of 1 pictures"):
        edit.between(*pipe.noise(keys), 1)
