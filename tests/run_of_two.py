"""One of several processes that train; it writes what it said: run_of_two.py PORT INDEX COUNT FOLDER TASK."""

import pathlib
import sys

from together import join

if __name__ == "__main__":
    index, folder, kind = sys.argv[2], sys.argv[4], sys.argv[5]
    join(*sys.argv[1:4])

    from jaxdiff.data.source import DataConfig
    from jaxdiff.experiment import Experiment
    from jaxdiff.models.made import MadeConfig
    from jaxdiff.models.text import TextConfig
    from jaxdiff.models.unet import UNetConfig
    from jaxdiff.parallel import MeshSpec
    from jaxdiff.tasks import autoregressive, picture
    from jaxdiff.tasks.previews import PreviewConfig
    from jaxdiff.trainer import run
    from jaxdiff.training import CheckpointConfig, TrainConfig

    if kind == "picture":
        task = picture.Config(
            net=UNetConfig(
                channels=(8,), layers=1, attention=("cross",), mid_attention="none", heads=(1,), depth=(1,), groups=4,
                pooled=True,
            ),
            text=TextConfig(vocabulary=300, length=8, width=8, layers=1, heads=2),
            vocabulary=270,
            preview=PreviewConfig(prompts=("red", "blue", "red"), steps=2),
        )  # fmt: skip
    else:
        task = autoregressive.Config(net=MadeConfig(hidden=(32,)), levels=2, grey=True, previews=3)
    config = Experiment(
        name="two",
        task=task,
        mesh=MeshSpec(fsdp=2),
        data=DataConfig(name=f"{folder}/pictures", split="all", size=8 if kind == "picture" else 4),
        held_out="all",
        held_out_batches=1,
        train=TrainConfig(steps=2, batch_size=8, preview_every=1),
        checkpoint=CheckpointConfig(every=1),
    )
    said: list[str] = []
    state = run(config, f"{folder}/run", say=said.append)
    pathlib.Path(folder, f"said{index}.txt").write_text("\n".join([*said, f"done {int(state.step)}"]))
