"""The budget of `jaxdiff compare`, importable in a moment."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Budget:
    """The budget of each run.

    Attributes:
      minutes: minutes of training, without compiling.
      steps: steps of training instead; 0: by minutes.
      flops: floating-point operations of training instead; 0: by minutes.
      seeds: runs of each config.
      num: pictures that are measured.
      split: split of the data that all are measured against.
      metrics: metrics of `jaxdiff evaluate`; the likelihood that a model has is added.
      width: width of the features.
      batch_size: pictures at once on each device.
    """

    minutes: float = 20.0
    steps: int = 0
    flops: float = 0.0
    seeds: int = 3
    num: int = 512
    split: str = "test"
    metrics: tuple[str, ...] = ("frechet", "kid", "neighbours")
    width: str = ""
    batch_size: int = 16
