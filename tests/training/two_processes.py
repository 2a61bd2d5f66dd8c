"""One of two processes that train the toy: two_processes.py PORT INDEX WORKDIR STEPS SECONDS [DATA FSDP TENSOR]."""

import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

import jax
import pytest
from toy_task import Data, program

from jaxdiff.parallel import MeshSpec
from jaxdiff.training import CheckpointConfig, OptimizerConfig, TrainConfig, fit

PORT, INDEX, WORKDIR, STEPS, SECONDS = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), float(sys.argv[5])


class Half(Data):
    """This process' half of each batch; its state says whose it is, as those of some loaders do."""

    def __next__(self):
        time.sleep(SECONDS)
        return super().__next__()

    def get_state(self):
        return {"count": self.count, "shard": INDEX}

    def set_state(self, state):
        assert state["shard"] == INDEX
        super().set_state(state)


if __name__ == "__main__":
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{PORT}", num_processes=2, process_id=INDEX)
    assert jax.device_count() == 8
    for spec, message in ((MeshSpec(1, 1, 8), "reaches over processes"), ("pmap", "runs in one process")):
        with pytest.raises(ValueError, match=message):
            program(spec)
    sgd = OptimizerConfig(name="sgd", lr=1e-2, decay="constant", clip=0.0)
    run = program(MeshSpec(*map(int, sys.argv[6:])), sgd)
    data = Half(16, first=8 * INDEX, last=8 * INDEX + 8)
    train = TrainConfig(steps=STEPS, batch_size=16, log_every=1)
    print(int(fit(run, data, jax.random.key(0), WORKDIR, train, CheckpointConfig(every=100)).step))
