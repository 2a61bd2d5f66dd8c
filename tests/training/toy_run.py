"""Trains the toy in a process of its own, for tests that kill it: toy_run.py WORKDIR STEPS [SECONDS of each batch]."""

import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

import jax
from toy_task import Data, program

from jaxdiff.training import CheckpointConfig, TrainConfig, fit


class SlowData(Data):
    def __next__(self):
        time.sleep(float(sys.argv[3]))
        return super().__next__()


if __name__ == "__main__":
    workdir, steps = sys.argv[1], int(sys.argv[2])
    train = TrainConfig(steps=steps, batch_size=8, log_every=2)
    state = fit(program(), SlowData(8), jax.random.key(0), workdir, train, CheckpointConfig(every=3, keep=2))
    print(int(state.step))
