"""The platform that decides which form an operation takes: the one its program is lowered for, not the host's.

A mesh in force (`jax.set_mesh`, which every program of this library is traced under, or pmap) names its devices, of
this machine or of one that is only described, and the form for them is traced alone. Where there is none, as in a
`jax.jit` of one's own, all forms are traced, and `lax.platform_dependent` keeps the right one when the program is
lowered.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax import lax


def by_platform(
    *args: Any,
    default: Callable[..., Any],
    cpu: Callable[..., Any] | None = None,
    gpu: Callable[..., Any] | None = None,
    tpu: Callable[..., Any] | None = None,
) -> Any:
    """Calls the form of an operation for the platform that is compiled for, `default` where it has none of its own."""
    forms = {name: form for name, form in (("cpu", cpu), ("gpu", gpu), ("tpu", tpu)) if form is not None}
    if platform := known_platform():
        return forms.get(platform, default)(*args)
    if gpu is not None:
        forms["cuda"] = forms.pop("gpu")
    return lax.platform_dependent(*args, default=default, **forms) if forms else default(*args)


def known_platform() -> str | None:
    """Returns the platform of the mesh in force, "cpu", "gpu" or "tpu"; None without a mesh."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return None if device is None else device.platform
