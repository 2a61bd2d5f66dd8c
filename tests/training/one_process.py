"""One process of a run: one_process.py PORT INDEX COUNT toy|pictures WORKDIR STEPS SECONDS [MESH]."""

import json
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import jax
import numpy as np
import pytest
from together import join
from toy_task import MATRIX, TASK, Data, program

from jaxdiff import data
from jaxdiff.data.source import DataConfig
from jaxdiff.parallel import MeshSpec
from jaxdiff.training import CheckpointConfig, OptimizerConfig, TrainConfig, fit, processes

SGD = OptimizerConfig(name="sgd", lr=1e-2, decay="constant", clip=0.0)
BATCH = 16


class Share(Data):
    """This process' part of each batch; its state says whose it is, as those of some loaders do."""

    def __init__(self, index, seconds):
        super().__init__(BATCH, first=8 * index, last=8 * index + 8)
        self.index, self.seconds = index, seconds

    def __next__(self):
        time.sleep(self.seconds)
        return super().__next__()

    def get_state(self):
        return {"count": self.count, "shard": self.index}

    def set_state(self, state):
        assert state["shard"] == self.index
        super().set_state(state)


class Pictures:
    """A source of 37 pictures, each with the values of its number."""

    labels = ()

    def __len__(self):
        return 37

    def __getitem__(self, index):
        image = np.random.default_rng(index).integers(0, 256, (8, 8, 3), np.uint8)
        return {"image": image, "caption": "", "label": 0}

    def captions(self):
        return [""] * 37


class Logged:
    """The pictures of this process; their numbers go to IDS, a line a batch."""

    def __init__(self, index, count, seconds, ids):
        config = DataConfig(flip=True, workers=0)
        share = {"process_index": index, "process_count": count}
        self.stream = data.batches(Pictures(), config, batch_size=BATCH, seed=3, **share)
        self.seconds, self.ids, self.index, self.count = seconds, ids, index, count

    def __next__(self):
        time.sleep(self.seconds)
        number, batch = self.get_state()["batch"], next(self.stream)
        with self.ids.open("a") as file:
            file.write(json.dumps([number, self.index, self.count, batch["index"].tolist()]) + "\n")
        return {"image": batch["image"].astype(np.float32) / 128 - 1}

    def get_state(self):
        return self.stream.get_state()

    def set_state(self, state):
        self.stream.set_state(state)


def main(port, index, count, kind, workdir, steps, seconds, *mesh):
    index, count, seconds, workdir = int(index), int(count), float(seconds), pathlib.Path(workdir)
    processes.EVERY = 1.0
    if count > 1:
        join(port, index, count)
        assert jax.device_count() == count * jax.local_device_count()
    if kind == "toy":
        for spec, message in ((MeshSpec(1, 1, 8), "reaches over processes"), ("pmap", "runs in one process")):
            with pytest.raises(ValueError, match=message):
                program(spec)
        stream, task, every = Share(index, seconds), TASK, 100
    else:
        workdir.mkdir(exist_ok=True)
        stream, task, every = Logged(index, count, seconds, workdir / f"ids{index}.jsonl"), MATRIX, 3
    run = program(MeshSpec(*map(int, mesh)), SGD, task=task)
    train = TrainConfig(steps=int(steps), batch_size=BATCH, log_every=1, preview_every=2)

    def preview(step, _):
        """Waits for every process: if one did not enter, the run would never end."""
        assert processes.gather(step) == [step] * count

    state = fit(run, stream, jax.random.key(0), workdir, train, CheckpointConfig(every=every), preview=preview)
    print(int(state.step))


if __name__ == "__main__":
    main(*sys.argv[1:])
