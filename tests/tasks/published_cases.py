"""Tasks on a model of others: small ones of each, pictures of no folder, and a walk of a few steps."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from pipelines import small

from jaxdiff import training
from jaxdiff.data import DataConfig
from jaxdiff.tasks import base_model, controlnet, finetune, lora, textual_inversion
from jaxdiff.training import OptimizerConfig

COUNT, SIZE = 4, 16
ADAM = OptimizerConfig(lr=1e-2, decay="constant", clip=0.0)
DATA = DataConfig(name="none", size=SIZE)
FINE = finetune.Config(train=("unet/mid/.*", "text_encoder/block_1/.*"), drop=0.3)
LORA = lora.Config(parts=("attention", "convolutions", "text_feed_forward"), rank=2, alpha=3.0)
DORA = dataclasses.replace(LORA, dora=True, ranks=((r"unet/mid/.*", 1),))
WORD = textual_inversion.Config(word="<toy>", init="red heart", vectors=3)
CONTROL = controlnet.Config(hint_channels=(4, 4))
TASKS = {"finetune": FINE, "lora": LORA, "dora": DORA, "textual_inversion": WORD, "controlnet": CONTROL}


class Given:
    """Pictures of no folder."""

    labels = ()

    def __len__(self):
        return COUNT

    def __getitem__(self, index):
        image = small.picture(f"picture {index}")[0]
        return {"image": image, "caption": f"heart number {index}", "label": 0}

    def captions(self):
        return [self[i]["caption"] for i in range(COUNT)]


def one_device(shapes):
    return jax.tree.map(lambda _: jax.sharding.SingleDeviceSharding(jax.devices()[0]), shapes)


def made(task, folder, **assets):
    source = Given()
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
