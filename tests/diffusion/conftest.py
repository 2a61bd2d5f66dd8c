"""The mathematics of diffusion/ mixes no dtypes: its tests run under strict promotion."""

import jax
import pytest


@pytest.fixture(autouse=True)
def strict():
    with jax.numpy_dtype_promotion("strict"):
        yield
