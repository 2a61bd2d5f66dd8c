import jax
import pytest
from jax.sharding import AxisType

from jaxdiff.parallel import MeshSpec, make_mesh


@pytest.mark.parametrize(
    ("spec", "sizes"),
    [
        (MeshSpec(), (8, 1, 1)),
        (MeshSpec(fsdp=4), (2, 4, 1)),
        (MeshSpec(data=2, fsdp=-1, tensor=2), (2, 2, 2)),
        (MeshSpec(data=1, fsdp=1, tensor=-1), (1, 1, 8)),
    ],
)
def test_sizes_fill_the_devices(spec, sizes):
    mesh = make_mesh(spec)
    assert tuple(mesh.shape.values()) == sizes
    assert tuple(mesh.shape) == ("data", "fsdp", "tensor")
    assert set(mesh.axis_types) == {AxisType.Auto}


def test_a_part_of_the_devices():
    assert list(make_mesh(MeshSpec(), jax.devices()[:1]).devices.flat) == jax.devices()[:1]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (MeshSpec(fsdp=3), "data=-1, fsdp=3, tensor=1 needs a multiple of 3 devices, but there are 8"),
        (MeshSpec(data=2, fsdp=2), "needs 4 devices, but there are 8"),
        (MeshSpec(data=4, fsdp=4), "needs 16 devices, but there are 8"),
        (MeshSpec(data=0), "data=0"),
        (MeshSpec(tensor=-2), "tensor=-2"),
        (MeshSpec(data=-1, fsdp=-1), "only one may be -1"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        make_mesh(spec)
