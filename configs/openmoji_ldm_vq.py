"""openmoji_ldm.py in 16x16x4 latents of a VQ autoencoder (f=4), as its encoder gives them: the decoder quantises.

Paper: Rombach et al. 2022, arXiv 2112.10752, sections 3.1 and 4.3.
Hardware: 2 CPU cores. Time and result: not measured yet.
Command: jaxdiff train configs/openmoji_vq.py && jaxdiff latents configs/openmoji_ldm_vq.py --autoencoder
  runs/openmoji_vq --out runs/openmoji_vq-latents && jaxdiff train configs/openmoji_ldm_vq.py --data.name
  runs/openmoji_vq-latents
"""

import openmoji_ldm

from jaxdiff.experiment import Experiment


def config() -> Experiment:
    return openmoji_ldm.config("openmoji_ldm_vq")


def small() -> Experiment:
    return openmoji_ldm.shrunk(config())
