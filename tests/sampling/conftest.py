"""Strict dtype promotion: what is computed in float32 mixes with nothing else by accident."""

import jax
import pytest


@pytest.fixture(autouse=True)
def strict_promotion():
    with jax.numpy_dtype_promotion("strict"):
        yield
