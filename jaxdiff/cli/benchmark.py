"""`jaxdiff benchmark unet train-step --config cifar10 --against torch`.

What is slow to import is imported when it is needed, so that --help and mistakes are answered at once.
"""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclasses.dataclass(frozen=True)
class Args:
    """Measures how fast the programs of a model are, with random weights and made-up inputs.

    Attributes:
      what: unet, train-step, loop (sampling beside bare calls of the network), text-to-image, text-encoder, decoder,
        loader, checkpoint; by default all that the model has.
      config: a config file, the name of one in configs/, or a published model: sd1, sd2, sdxl.
      batch: examples of a call, over all devices (pictures, for text-to-image, whose U-Net sees a guided pair of each);
        by default 16, and 2 for published models.
      rounds: timed calls of each side.
      steps: network calls of loop and text-to-image.
      size: side of the pictures in pixels; by default the model's own.
      dtype: of all networks; by default the config's, float32 for published models.
      devices: numbers of devices to measure on; more than there are become virtual ones, on a CPU.
      against: torch also runs the same networks there, eager and compiled, in turns with ours; torch-eager does not
        compile them, which takes minutes for a train step.
      json: a file for all figures.
      profile: a directory for a trace of one call of each program, as TensorBoard and Perfetto read it.
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
