"""A Riemannian score model of three bumps on the torus, near its seams, whose law is known.

Paper: De Bortoli et al. 2022, arXiv 2202.02763: on tori of up to 1024 angles, of wound Gaussians.
Hardware: 2 CPU cores. Time: not measured yet. Result: after 1200 steps 6 % of the mass lies elsewhere, counted of
4096 points in 64 cells, and 3 % of as many points of the law itself (tests/tasks/test_surface.py).
Command: jaxdiff train configs/spaces/torus.py
"""

from sphere import on, shrunk

from jaxdiff.experiment import Experiment


def config() -> Experiment:
    return on("torus")


def small() -> Experiment:
    return shrunk(config())
