"""`jaxdiff benchmark unet train-step --config cifar10 --against torch`.

What is slow to import is imported when it is needed, so that --help and mistakes are answered at once.
"""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclasses.dataclass(frozen=True)
class Args:
    """Measures the speed of a model's programs, with random weights and made-up inputs.

    Attributes:
      what: programs to measure: unet, train-step, loop (sampling, compared with bare network calls), text-to-image,
        text-encoder, decoder, loader, checkpoint. By default all that the model has.
      config: config file, name of one in configs/, or published model: sd1, sd2, sdxl.
      batch: number of examples in each call, over all devices; for text-to-image these are pictures, and the U-Net sees
        a guided pair of each. By default 16, or 2 for published models.
      rounds: number of rounds; in each, every program that is compared is timed once.
      steps: number of network calls in loop and text-to-image.
      size: side of the pictures in pixels; by default the model's.
      dtype: type of all networks; by default the config's, or float32 for published models.
      devices: numbers of devices to measure on; on a CPU, those beyond the first are virtual.
      against: torch also runs the same networks in PyTorch, eager and compiled, taking turns with ours; torch-eager
        leaves out the compiled ones, which take minutes to compile for a train step.
      json: file to write all figures to.
      profile: directory for a trace of one call of each program, readable by TensorBoard and Perfetto.
    """

    what: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    config: str = "quickstart"
    batch: int | None = None
    rounds: int = 10
    steps: int = 20
    size: int | None = None
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    devices: tuple[int, ...] = (1,)
    against: Literal["torch", "torch-eager"] | None = None
    json: Path | None = None
    profile: Path | None = None


def main(argv: list[str]) -> None:
    """Measures, and prints each record's tables at the end."""
    args = tyro.cli(Args, args=argv, prog="jaxdiff benchmark")
    from jaxdiff.cli import benchmark_run

    benchmark_run.run(args, argv)
