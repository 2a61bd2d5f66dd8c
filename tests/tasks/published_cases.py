"""Tasks on a model of others: small ones of each, pictures of no folder, and a walk of a few steps."""

import dataclasses
import functools
import pathlib
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
from pipelines import directory, small

from jaxdiff import training
from jaxdiff.data import DataConfig, picture
from jaxdiff.models.patch_critic import PatchCriticConfig
from jaxdiff.tasks import (
    base_model,
    controlnet,
    dmd,
    finetune,
    inpaint,
    instruct,
    ip_adapter,
    lcm,
    lcm_lora,
    lora,
    progressive,
    t2i_adapter,
    textual_inversion,
)
from jaxdiff.training import OptimizerConfig

COUNT, SIZE = 4, 16
ADAM = OptimizerConfig(lr=1e-2, decay="constant", clip=0.0)
DATA = DataConfig(name="none", size=SIZE)
FINE = finetune.Config(train=("unet/mid/.*", "text_encoder/block_1/.*"), drop=0.3)
LORA = lora.Config(parts=("attention", "convolutions", "text_feed_forward"), rank=2, alpha=3.0)
DORA = dataclasses.replace(LORA, dora=True, ranks=((r"unet/mid/.*", 1),))
WORD = textual_inversion.Config(word="<toy>", init="red heart", vectors=3)
CONTROL = controlnet.Config(hint_channels=(4, 4))
IN = ("unet/mid/.*", "unet/conv_in/.*")
TASKS = {
    "finetune": FINE,
    "lora": LORA,
    "dora": DORA,
    "textual_inversion": WORD,
    "controlnet": CONTROL,
    "lcm": lcm.Config(train=("unet/mid/.*",)),
    "lcm adversarial": lcm.Config(
        train=("unet/mid/.*",), adversarial=0.1, critic=PatchCriticConfig(width=4, layers=1, groups=4)
    ),
    "lcm told": lcm.Config(train=("unet/mid/.*", "unet/guidance_proj/.*"), guidance=(1.0, 9.0), guidance_width=8),
    "lcm_lora": lcm_lora.Config(parts=("attention", "convolutions"), rank=2),
    "dmd": dmd.Config(
        train=("unet/mid/.*",), steps=2, adversarial=0.1, critic=PatchCriticConfig(width=4, layers=1, groups=4)
    ),
    "progressive": progressive.Config(train=("unet/mid/.*",), guidance=(1.0, 3.0)),
    "instruct": instruct.Config(train=IN, drop=0.1),
    "inpaint": inpaint.Config(train=IN, drop=0.3),
    "t2i_adapter": t2i_adapter.Config(layers=1),
    "ip_adapter": ip_adapter.Config(tokens=2, drop=0.1),
}


def save(folder):
    """A model, one that predicts v, and an image encoder."""
    directory.save(folder / "v", scheduler="ddim v")
    directory.save_part(folder / "vision", "tiny vision")
    return directory.save(folder / "model")


def fitted(name, model, **more):
    """The task of that name for a model of `save`."""
    more |= {"model": model.with_name("v") if name == "progressive" else model}
    more |= {"image_encoder": model.with_name("vision")} if name == "ip_adapter" else {}
    return dataclasses.replace(TASKS[name], **more)


@functools.cache
def hint(index):
    """A picture in a file."""
    path = pathlib.Path(tempfile.mkdtemp()) / f"{index}.png"
    path.write_bytes(picture.encode(small.picture(f"hint {index}")[0]).getvalue())
    return path


class Given:
    """Pictures of no folder."""

    labels = ()

    def __len__(self):
        return COUNT

    def __getitem__(self, index):
        image = small.picture(f"picture {index}")[0]
        told = {"caption": f"heart number {index}", "label": 0, "sides": (SIZE, SIZE)}
        return {"image": image, **told, "name": f"{index}.png", "hint": str(hint(index))}

    def captions(self):
        return [self[i]["caption"] for i in range(COUNT)]


class Pairs(Given):
    """The same in a folder whose metadata.jsonl names hints."""

    def names(self):
        return [f"{i}.png" for i in range(COUNT)]

    def hints(self):
        return [hint(i) for i in range(COUNT)]


def one_device(shapes):
    return jax.tree.map(lambda _: jax.sharding.SingleDeviceSharding(jax.devices()[0]), shapes)


def made(task, folder, **assets):
    source = Pairs()
    found = task.assets(folder, DATA, source, new=not (folder / base_model.NOTE).exists())._replace(**assets)
    return task.task(found), found


def batch_of(task, seed=0):
    rows = [task.example(Given()[i], np.random.default_rng((seed, i))) for i in range(COUNT)]
    return {name: jnp.asarray(np.stack([row[name] for row in rows])) for name in rows[0]}


def started(task, groups=(), key=0, rate=ADAM):
    optimizer = training.make_optimizer(rate, 10, groups)
    init = training.make_init_state(task, optimizer)
    return optimizer, jax.jit(init)(jax.random.key(key), task.load(one_device), batch_of(task))


def walk(task, optimizer, state, steps, accumulate=1):
    step = jax.jit(training.make_train_step(task, optimizer, training.make_ema(0.5), accumulate=accumulate))
    for n in range(steps):
        state, _ = step(state, batch_of(task, n), jax.random.split(jax.random.key(n), COUNT))
    return state
