"""One training step on many devices: the mesh, the sharding rules, and the compiled program."""

from jaxdiff.parallel.compile import Program, compile, place
from jaxdiff.parallel.mesh import MeshSpec, make_mesh
from jaxdiff.parallel.rules import DEFAULT_RULES, Rules, fsdp, param_shardings, shardings, tensor

__all__ = [
    "DEFAULT_RULES",
    "MeshSpec",
    "Program",
    "Rules",
    "compile",
    "fsdp",
    "make_mesh",
    "param_shardings",
    "place",
    "shardings",
    "tensor",
]
