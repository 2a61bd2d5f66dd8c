"""Losses and trained tensors of plain PyTorch loops of latent consistency distillation by diffusers' modules: lcm.npz.

    PYTHONPATH=.:tests python tests/reference/lcm.py

As diffusers 0.42.1 distils in examples/consistency_distillation/train_lcm_distill_lora_sd_wds.py, with the weights
themselves as target; batches, draws, optimizer and names are those of finetune.py.
"""

import copy
import pathlib
import sys

import jax
import numpy as np
import torch

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import finetune
import finetune_cases as cases

from jaxdiff.diffusion import draws
from jaxdiff.tasks import distilled


class Student(finetune.Loop):
    """The loss of a student of a copy of the U-Net as it was."""

    def __init__(self, *args):
        super().__init__(*args)
        self.teacher = copy.deepcopy(self.pipe.unet)

    def mapped(self, unet, x, step, states):
        """The boundary condition of the script, sigma_data 0.5 and timestep_scaling 10."""
        eps = unet(x, step, states).sample
        scaled = 10.0 * step.double()
        c_skip, c_out = 0.25 / (scaled**2 + 0.25), scaled / (scaled**2 + 0.25) ** 0.5
        x0 = self.origin(x, eps, step)
        return self.wide(c_skip) * x + self.wide(c_out) * x0, eps

    def wide(self, x):
        return x.float()[:, None, None, None]

    def origin(self, x, eps, step):
        return (x - self.wide((1 - self.abar[step]) ** 0.5) * eps) / self.wide(self.abar[step] ** 0.5)

    def losses(self, row, keys):
        image = torch.tensor(row["image"].astype(np.float32) / 127.5 - 1).permute(0, 3, 1, 2)
        with torch.no_grad():
            moments = self.pipe.vae.encode(image).latent_dist
        _, noise, latent, gone = finetune.drawn(keys, self.task, tuple(np.roll(moments.mean.shape[1:], -1)))
        x0 = (moments.mean + moments.std * latent) * self.pipe.vae.config.scaling_factor
        skip = 1000 // self.task.intervals
        index = torch.tensor(np.floor(np.asarray(draws.uniform(keys)) * self.task.intervals).astype(int))
        start, end = skip * (index + 1) - 1, torch.clamp(skip * index - 1, min=0)
        x = self.wide(self.abar[start] ** 0.5) * x0 + self.wide((1 - self.abar[start]) ** 0.5) * noise
        tokens = {n: torch.tensor(v) for n, v in row.items() if n.startswith("text")}
        states, empty = (self.states(tokens, torch.full_like(gone, none), row)[0] for none in (False, True))
        predicted, _ = self.mapped(self.pipe.unet, x, start, states)
        low, high = self.task.guidance
        one = lambda key: jax.random.uniform(key, minval=low, maxval=high)
        w = torch.tensor(np.asarray(jax.vmap(one)(draws.fold(keys, distilled._GUIDANCE)))) - 1
        with torch.no_grad():
            with_text, without = self.teacher(x, start, states).sample, self.teacher(x, start, empty).sample
            eps = with_text + self.wide(w) * (with_text - without)
            ends = [self.origin(x, one, start) for one in (with_text, without)]
            clean = ends[0] + self.wide(w) * (ends[0] - ends[1])
            below = self.wide(self.abar[end] ** 0.5) * clean + self.wide((1 - self.abar[end]) ** 0.5) * eps
            target, _ = self.mapped(self.pipe.unet, below, end, states)
        return (torch.sqrt((predicted - target) ** 2 + 0.001**2) - 0.001).mean((1, 2, 3))


def main():
    arrays = {}
    for case in cases.STUDENTS:
        arrays[f"{case}/losses"], arrays[f"{case}/trained"] = finetune.run(case, Student)
    np.savez_compressed(finetune.HERE.with_name("lcm.npz"), **arrays)


if __name__ == "__main__":
    main()
