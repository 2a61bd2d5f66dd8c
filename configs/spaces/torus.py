"""A Riemannian score model of three bumps on the torus, near its seams, whose law is known.

Paper: De Bortoli et al. 2022, arXiv 2202.02763: on tori of up to 1024 angles, of wound Gaussians.
Hardware: 2 CPU cores. Time and result: not measured yet.
Command: jaxdiff train configs/spaces/torus.py
"""

from sphere import on, shrunk

from jaxdiff.experiment import Experiment


def config() -> Experiment:
    return on("torus")


def small() -> Experiment:
    return shrunk(config())
