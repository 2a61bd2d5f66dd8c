"""`jaxdiff sample --model DIR --prompt "a red heart" ...`."""

import dataclasses
from pathlib import Path
from typing import Literal

import jax
import numpy as np
import tyro

from jaxdiff.cli.main import compilation_cache
from jaxdiff.data.grid import grid, save_png
from jaxdiff.loading import load
from jaxdiff.parallel import MeshSpec


@dataclasses.dataclass(frozen=True)
class Args:
    """Makes pictures with a trained model and writes them as one grid.

    Attributes:
      model: a run of `jaxdiff train`, or one of its checkpoints, RUN/checkpoints/STEP.
      prompt: what to show; several make several rows.
      num: pictures of each prompt.
      out: the PNG; it carries prompts, seed and settings as text.
      steps: of the sampler.
      sampler: how to walk from noise to picture.
      guidance: how closely to follow the prompt; 1 is off.
      negative_prompt: what to keep away from.
      eta: noise added at each step by samplers that have it, from 0 (none) to 1 (as DDPM).
      seed: picture i of a prompt depends on the seed and i alone, not on the others.
      init_noise: a .npy file [pictures, height, width, channels] of unit Gaussian noise to start from.
      batch_size: most pictures made at once.
      strategy: how devices share the pictures: a mesh, or pmap.
    """

    model: str
    prompt: tuple[str, ...] = ("",)
    num: int = 4
    out: Path = Path("samples.png")
    steps: int = 20
    sampler: str = "ddim"
    guidance: float = 3.0
    negative_prompt: str = ""
    eta: float | None = None
    seed: int = 0
    init_noise: Path | None = None
    batch_size: int = 64
    strategy: Literal["mesh", "pmap"] = "mesh"


def main(argv: list[str]) -> None:
    """Samples and writes the grid."""
    args = tyro.cli(Args, args=argv, prog="jaxdiff sample")
    if args.num < 1 or args.batch_size < 1:
        raise ValueError(f"num is {args.num} and batch_size {args.batch_size}: expected at least 1 of each")
    compilation_cache()
    pipe = load(args.model, "pmap" if args.strategy == "pmap" else MeshSpec())
    for prompt in args.prompt:
        if unseen := pipe.cut(prompt):
            print(f"the prompt is too long for this model; it does not see {unseen!r}")
    prompts = [prompt for prompt in args.prompt for _ in range(args.num)]
    root = jax.random.key(args.seed)
    keys = jax.vmap(lambda i: jax.random.fold_in(root, i))(np.tile(np.arange(args.num), len(args.prompt)))
    noise = None if args.init_noise is None else np.load(args.init_noise, allow_pickle=False)
    parts = []
    for first in range(0, len(prompts), args.batch_size):
        at = slice(first, first + args.batch_size)
        images = pipe(
            prompts[at],
            key=keys[at],
            steps=args.steps,
            sampler=args.sampler,
            guidance=args.guidance,
            negative=args.negative_prompt,
            eta=args.eta,
            init_noise=None if noise is None else noise[at],
        )
        parts.append(images)
        if len(prompts) > args.batch_size:
            print(f"{min(at.stop, len(prompts))}/{len(prompts)} pictures", flush=True)
    settings = {k: str(v) if isinstance(v, Path) else v for k, v in dataclasses.asdict(args).items()}
    columns = args.num if args.num > 1 else None
    save_png(args.out, grid(np.concatenate(parts), prompts, columns), settings)
    print(f"{len(prompts)} pictures: {args.out}")
