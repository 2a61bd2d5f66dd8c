"""Students conditioned on the guidance scale: one call a step, at the scale that is asked for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pipelines import small

from jaxdiff.diffusion import schedule
from jaxdiff.pipelines import guided
from jaxdiff.typing import Cond


@pytest.fixture(scope="module")
def pipe():
    return small.pipeline({"unet": "unet_told", "vae": "tiny vae", "text_encoder": "tiny text"})


def test_the_network_is_told_the_scale_of_each_step():
    network = lambda params, x, t, cond: x * cond.guidance[:, None]
    cosine, x = schedule.cosine(), jnp.ones((3, 2))
    denoise = guided.embedded_guidance(network, {}, Cond(), cosine, "x0", "prediction")
    np.testing.assert_allclose(denoise(x, jnp.full(3, 0.5), {"guidance": 7.5}), 7.5 * x)
    np.testing.assert_allclose(denoise(x, jnp.full(3, 0.5), {}), x)


def test_a_call_leads_away_from_nothing_and_gives_the_scale(pipe):
    (_, numbers), batch = pipe.arguments("a heart", key=jax.random.key(0), steps=2, guidance=4.0)
    assert "negative" not in batch
    np.testing.assert_allclose(numbers.table.aux["guidance"], 4.0)
    for name, value in (("negative", "a star"), ("rescale", 0.5)):
        with pytest.raises(ValueError, match=f"this model takes no {name}"):
            pipe.arguments("a heart", key=jax.random.key(0), steps=2, **{name: value})
