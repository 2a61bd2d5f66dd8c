"""A semi-supervised GAN of scikit-learn's digits: the critic learns ten classes and fake, from few labels.

Paper: Salimans et al. 2016, arXiv 1606.03498, section 5: 100 labels of MNIST leave 0.93 % wrong, by matching features;
Odena 2016, arXiv 1606.01583: by the plain game 80.2 % are right with 25 labels, and 75.0 % of the critic's shape alone.
Hardware: 2 CPU cores. Time: about 3 minutes. Result, of 2 seeds with 40 labels: 61 % of the other 297 digits are right,
and 75 % where the same critic learns from the labels alone: with so few pictures this game does not help.
Command: jaxdiff train configs/digits/gan_semi.py
"""

import dataclasses

from digits_made import on_digits, shrunk

from jaxdiff.experiment import Experiment
from jaxdiff.models.critic import CriticConfig
from jaxdiff.models.generator import GeneratorConfig
from jaxdiff.tasks import gan
from jaxdiff.training import OptimizerConfig


def config() -> Experiment:
    adam = OptimizerConfig(name="adam", lr=1e-3, b1=0.5, b2=0.99, decay="constant", clip=0.0)
    task = gan.Config(
        net=GeneratorConfig(family="dcgan", width=16, halvings=1, noise=32),
        critic=CriticConfig(family="dcgan", width=32, halvings=2, spectral=False),
        game="non_saturating",
        r1=0.5,
        grey=True,
        levels=17,
        classes=10,
        labelled=0.03,
        critic_optimizer=adam,
    )
    return dataclasses.replace(on_digits("gan_semi", task, 2000), held_out="", optimizer=adam)


def small() -> Experiment:
    base = config()
    net, critic = (dataclasses.replace(one, width=4) for one in (base.task.net, base.task.critic))
    return shrunk(base, net=dataclasses.replace(net, groups=2, noise=4), critic=critic, labelled=0.5)
