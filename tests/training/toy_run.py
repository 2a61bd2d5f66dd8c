"""Trains the toy in a process of its own, for tests that stop it: toy_run.py WORKDIR STEPS [SLOW]."""

import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

import jax
from toy_task import MATRIX, Data, program

from jaxdiff.training import CheckpointConfig, TrainConfig, fit

WORKDIR, STEPS, SLOW = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else None


class SlowData(Data):
    """From batch SLOW on, each takes so long that a test reaches the run before its end, however busy the machine."""

    def __next__(self):
        if SLOW is not None:
            time.sleep(0.01 if self.count < SLOW else 2.0)
        return super().__next__()


if __name__ == "__main__":
    train = TrainConfig(steps=STEPS, batch_size=8, log_every=2)
    run = program(task=MATRIX)
    state = fit(run, SlowData(8), jax.random.key(0), WORKDIR, train, CheckpointConfig(every=3, keep=2))
    print(int(state.step))
