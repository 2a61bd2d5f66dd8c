"""Prints what a VAE's latents say: python scripts/vae_latents.py RUN.

The bound in bits/dim with 1 to 64 draws, which tightens; and of a run on `--data.name shapes`, whose factors are known,
the mutual information gap and the beta-VAE score. Traversals are previews of the run, in samples/traversals.
"""

import pathlib
import sys

from jaxdiff.evaluation.latents_of import measure

if __name__ == "__main__":
    for name, value in measure(pathlib.Path(sys.argv[1])).items():
        print(f"{name:20} {value:.4f}")
