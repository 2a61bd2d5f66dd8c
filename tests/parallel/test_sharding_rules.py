import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from jaxdiff.parallel import MeshSpec, fsdp, make_mesh, shardings

SHAPES = {
    "conv": {"kernel": (3, 3, 128, 256), "bias": (256,)},
    "down_0": {"attn": {"q": {"kernel": (256, 512), "bias": (512,)}, "out": {"kernel": (512, 256)}}},
    "mlp": {"fc1": {"kernel": (256, 1024)}, "fc2": {"kernel": (1024, 256)}},
    "embed": {"table": (511, 128)},
    "odd": {"kernel": (129, 127)},
}


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class State:
    step: Any
    params: Any
    opt_state: Any


def specs(spec, rules=(), shapes=SHAPES):
    def leaf(shape):
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    params = jax.tree.map(leaf, shapes, is_leaf=lambda x: isinstance(x, tuple))
    state = State(
        leaf(()), params, ({"mu": params, "count": leaf(())}, {"factored": {"conv": {"kernel": leaf((128,))}}})
    )
    return jax.tree.map(lambda s: s.spec, shardings(state, make_mesh(spec), rules))


def test_defaults_split_large_weights_over_fsdp_and_widths_over_tensor():
    params = specs(MeshSpec(data=2, fsdp=2, tensor=2)).params
    assert params["conv"] == {"kernel": P(None, None, None, "fsdp"), "bias": P(None)}
    assert params["down_0"]["attn"]["q"] == {"kernel": P("fsdp", "tensor"), "bias": P("tensor")}
    assert params["down_0"]["attn"]["out"] == {"kernel": P("tensor", "fsdp")}
    assert params["mlp"] == {"fc1": {"kernel": P("fsdp", "tensor")}, "fc2": {"kernel": P("tensor", "fsdp")}}
    assert params["embed"] == {"table": P(None, "fsdp")}  # 511 does not divide
    assert params["odd"] == {"kernel": P(None, None)}


def test_moments_go_with_their_parameters_and_the_rest_stays_whole():
    state = specs(MeshSpec(data=2, fsdp=2, tensor=2))
    assert state.opt_state[0]["mu"] == state.params
    assert state.opt_state[0]["count"] == state.step == P()
    assert state.opt_state[1]["factored"]["conv"]["kernel"] == P()  # the path of a parameter, but not its shape


def test_the_first_full_match_of_the_rules_given_wins():
    rules = (("conv", P("data")), (r"conv/.*", P()), (r".*/kernel", fsdp), (r"conv/kernel", P("data")))
    params = specs(MeshSpec(fsdp=8, data=1), rules).params
    assert params["conv"]["kernel"] == P()
    assert params["mlp"]["fc2"]["kernel"] == P("fsdp", None)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (P("fsdp"), r"'odd/kernel': dimension 0 of shape \(129, 127\) does not split 2 ways"),
        (P(("data", "fsdp")), "does not split 4 ways"),
        (P("model"), "the mesh has no axis 'model'; it has data, fsdp, tensor"),
        (P(None, None, "fsdp"), "names 3 dimensions"),
    ],
)
def test_a_rule_that_does_not_fit_names_the_parameter(spec, message):
    with pytest.raises(ValueError, match=message):
        specs(MeshSpec(data=2, fsdp=2, tensor=2), (("odd/kernel", spec),))
