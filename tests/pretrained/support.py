"""What the tests of this folder share."""

import pathlib

import jax.numpy as jnp
import numpy as np

REFERENCE = pathlib.Path(__file__).parents[1] / "reference"


def close(ours, theirs, tolerance=1e-4):
    """Within `tolerance` of the largest number: float32 sums of two libraries, in different orders."""
    theirs = np.asarray(theirs)
    assert ours.shape == theirs.shape
    error = np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()
    assert error < tolerance, f"relative error {error:.2e}"


def same_tensors(ours, theirs):
    """The same names, shapes and numbers."""
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert ours[name].shape == tensor.shape
        np.testing.assert_array_equal(np.asarray(ours[name]), tensor)


def to_device(path, x):
    return jnp.asarray(x)
