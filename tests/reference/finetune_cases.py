"""What finetune.py and the test of its fixture have in common: the cases, their batches and keys."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from pipelines import small
from reference.sd_weights import noise

from jaxdiff.data import DataConfig
from jaxdiff.pretrained.read import Bundle
from jaxdiff.pretrained.write import write_directory
from jaxdiff.tasks import controlnet, finetune, lcm, lcm_lora, lora, textual_inversion
from jaxdiff.tasks.class_pictures import PriorConfig
from jaxdiff.training import OptimizerConfig

STEPS, COUNT, SIZE, KEPT = 5, 2, 16, 1500
OPTIMIZER = OptimizerConfig(lr=1e-3, decay="constant", weight_decay=0.1, clip=1.0)
CAPTIONS = ("a red heart", "seven <toy> birds!")
DATA = DataConfig(name="none", size=SIZE)
CASES = {
    "finetune sd": finetune.Config(train=("unet/.*", "text_encoder/.*"), drop=0.4, min_snr=3.0, offset_noise=0.1),
    "finetune xl": finetune.Config(drop=0.4),
    "dreambooth sd": finetune.Config(train=(r"unet/.*/attn2/.*",), prior=PriorConfig(prompt="a heart", weight=0.7)),
    "dreambooth xl": finetune.Config(train=(r"unet/.*/attn2/.*",), prior=PriorConfig(prompt="a heart", weight=0.7)),
    "lora sd": lora.Config(
        parts=("attention", "feed_forward", "projections", "convolutions", "time", "text_attention"),
        rank=2, alpha=3.0, ranks=((r"unet/mid/.*", 3),),
    ),
    "lora xl": lora.Config(parts=("attention", "text_feed_forward"), rank=2, stabilised=True),
    "dora sd": lora.Config(parts=("attention", "convolutions"), rank=2, dora=True),
    "textual_inversion sd": textual_inversion.Config(word="<toy>", init="heart", vectors=2, keep_norms=False),
    "textual_inversion xl": textual_inversion.Config(word="<toy>", init="heart", vectors=2, keep_norms=False),
    "controlnet sd": controlnet.Config(hint_channels=(4, 6)),
    "controlnet xl": controlnet.Config(hint_channels=(4, 6), drop=0.4),
}  # fmt: skip

STUDENTS = {
    "lcm sd": lcm.Config(guidance=(3.0, 9.0)),
    "lcm_lora sd": lcm_lora.Config(parts=("attention", "convolutions"), rank=2, guidance=(7.5, 7.5), intervals=25),
}
"""Cases of lcm.py."""


class Classes:
    """Two pictures of a class."""

    labels = ()

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return {"image": picture(f"class {index}"), "caption": "", "label": 0}


def picture(name):
    return ((noise(name, (SIZE, SIZE, 3)) + 1) * 127.5).round().astype(np.uint8)


def prepared(case, path, folder):
    """The task of a case, for the model at a path, and its assets in a folder."""
    task = dataclasses.replace((CASES | STUDENTS)[case], model=path)
    prior = getattr(task, "prior", PriorConfig())
    assets = dataclasses.replace(task, prior=PriorConfig()).assets(folder, DATA, source=Given(), new=True)
    return task, assets._replace(classes=Classes() if prior.prompt else None)


class Given:
    """The pictures that are trained on; they are told in other sides than their own."""

    labels = ()

    def __len__(self):
        return COUNT

    def __getitem__(self, index):
        return {"image": picture(f"picture {index}"), "caption": CAPTIONS[index], "label": 0, "sides": (40, 24)}

    def captions(self):
        return list(CAPTIONS)


def one_device(shapes):
    return jax.tree.map(lambda _: jax.sharding.SingleDeviceSharding(jax.devices()[0]), shapes)


def first_key():
    return jax.random.key(3)


def save(entry, path):
    """Writes the model of an entry of finetune.npz as a directory of diffusers."""
    parts = {name: small.component(one) for name, one in entry["parts"].items()}
    words = {name.replace("text_encoder", "tokenizer"): small.tokenizer() for name in parts if "text" in name}
    index = {"_class_name": entry["class"], "scheduler": ["diffusers", "DDIMScheduler"]}
    index |= {name: ["transformers" if "text" in name else "diffusers", one.kind] for name, one in parts.items()}
    index |= {name: ["transformers", "CLIPTokenizer"] for name in words}
    write_directory(Bundle(entry["class"], index, parts, words, {"scheduler": entry["scheduler"]}), path)
    return path


def batch(task, step):
    rows = [task.example(Given()[i], np.random.default_rng((step, i))) for i in range(COUNT)]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def unscaled(found):
    """A LoRA with scales of 1: a file has then the factors as they were trained."""
    one = lambda own: {target: {**factors, "scale": jnp.ones(())} for target, factors in own.items()}
    return {name: one(own) for name, own in found.items()}


def keys(step):
    return jax.random.split(jax.random.fold_in(jax.random.key(7), step), COUNT)


def thinned(tensors):
    """Evenly chosen numbers of all tensors, one after another in the order of their names."""
    flat = np.concatenate([np.asarray(tensors[name], np.float32).ravel() for name in sorted(tensors)])
    return flat[:: max(1, len(flat) // KEPT)]
