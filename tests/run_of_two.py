"""Run one of two processes that train, and write what it said: run_of_two.py PORT INDEX FOLDER FSDP."""

import pathlib
import sys

import jax

if __name__ == "__main__":
    port, index, folder, fsdp = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=2, process_id=index)

    from jaxdiff.data.source import DataConfig
    from jaxdiff.experiment import Experiment, run
    from jaxdiff.models.text import TextConfig
    from jaxdiff.models.unet import UNetConfig
    from jaxdiff.parallel import MeshSpec
    from jaxdiff.tasks import picture
    from jaxdiff.training import CheckpointConfig, TrainConfig

    task = picture.Config(
        net=UNetConfig(
            channels=(8,), layers=1, attention=("cross",), mid_attention="none", heads=(1,), depth=(1,), groups=4,
            pooled=True,
        ),
        text=TextConfig(vocabulary=300, length=8, width=8, layers=1, heads=2),
        vocabulary=270,
        preview=picture.PreviewConfig(prompts=("red", "blue", "red"), steps=2),
    )  # fmt: skip
    config = Experiment(
        name="two",
        task=task,
        mesh=MeshSpec(fsdp=fsdp),
        data=DataConfig(name=f"{folder}/pictures", split="all", size=8),
        held_out="all",
        held_out_batches=1,
        train=TrainConfig(steps=2, batch_size=8, preview_every=1),
        checkpoint=CheckpointConfig(every=1),
    )
    said: list[str] = []
    state = run(config, f"{folder}/run", say=said.append)
    pathlib.Path(folder, f"said{index}.txt").write_text("\n".join([*said, f"done {int(state.step)}"]))
