"""A masked autoregressive flow of scikit-learn's digits, 8x8 of 17 grey levels.

Paper: Papamakarios et al. 2017, arXiv 1705.07057, which has no figure of these digits. Counted on the same 1500
digits, independent pixels have 2.42 bits/dim on the other 297, and a tree of pairs (Chow and Liu 1968) 2.16 at best.
Hardware: 2 CPU cores. Time and result: not measured yet.
Command: jaxdiff train configs/digits/digits_maf.py
"""

from digits_made import on_digits, shrunk

from jaxdiff.experiment import Experiment
from jaxdiff.models.flow import FlowConfig
from jaxdiff.tasks import flow


def config() -> Experiment:
    task = flow.Config(net=FlowConfig(family="maf", steps=5, width=128), grey=True, levels=17)
    return on_digits("digits_maf", task, 3000)


def small() -> Experiment:
    return shrunk(config(), net=FlowConfig(family="maf", steps=1, width=8))
