"""What finetune_files.py and the test of its fixture have in common: runs of formula weights, and their files."""

import dataclasses
import json
import pathlib

import jax.numpy as jnp
import numpy as np
from pipelines import small
from reference import finetune_cases as cases
from reference.sd_weights import noise

from jaxdiff.pretrained import mend
from jaxdiff.pretrained.rules import flatten, unflatten
from jaxdiff.pretrained.write import write_component, write_directory
from jaxdiff.tasks import controlnet, inpaint, instruct, ip_adapter, lora, t2i_adapter, textual_inversion
from jaxdiff.training import Variables

SIZE, PROMPT, STEPS, GUIDANCE, PICTURE_GUIDANCE = cases.SIZE, "a red heart <toy>", 4, 3.0, 1.5
LORA = {"rank": 2, "alpha": 3.0}
PARTS = ("attention", "feed_forward", "projections", "convolutions", "time", "text_attention", "text_feed_forward")
CASES = {
    "lora sd diffusers": lora.Config(parts=PARTS, **LORA),
    "lora sd kohya": lora.Config(parts=PARTS, **LORA),
    "lora xl diffusers": lora.Config(parts=PARTS, **LORA, stabilised=True),
    "lora xl kohya": lora.Config(parts=PARTS, **LORA),
    "dora sd diffusers": lora.Config(parts=("attention", "convolutions", "text_attention"), dora=True, **LORA),
    "dora sd kohya": lora.Config(parts=("attention", "convolutions", "text_attention"), dora=True, **LORA),
    "textual_inversion sd diffusers": textual_inversion.Config(word="<toy>", init="heart", vectors=2),
    "textual_inversion xl diffusers": textual_inversion.Config(word="<toy>", init="heart", vectors=2),
    "controlnet sd diffusers": controlnet.Config(hint_channels=(4, 6)),
    "controlnet xl diffusers": controlnet.Config(hint_channels=(4, 6)),
    "t2i_adapter sd diffusers": t2i_adapter.Config(layers=1),
    "ip_adapter sd diffusers": ip_adapter.Config(),
    "instruct sd diffusers": instruct.Config(hint="files", train=("unet/conv_in/.*",)),
    "inpaint sd diffusers": inpaint.Config(train=("unet/conv_in/.*",)),
}  # fmt: skip
"""By task, base and layout."""
VISION = {
    "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "image_size": SIZE, "patch_size": 8, "projection_dim": 8,
}  # fmt: skip
STRENGTH = {"ip_adapter": 0.05, "t2i_adapter": 0.05, "textual_inversion": 1.0}


def hint():
    """The picture that models look at, uint8 [1 h w 3]."""
    return cases.picture("a hint")[None]


def mask():
    """What is to be filled, [h w]: the right half."""
    return np.tile(np.arange(SIZE) >= SIZE // 2, (SIZE, 1)).astype(np.float32)


def first():
    """The noise that a walk starts from, [1 c h w]."""
    return noise("first", (1, 4, SIZE // 2, SIZE // 2))


def prepared(case, model, folder):
    """The task of a case, its assets, and weights as training may have left them: the first ones, each moved a bit."""
    name = case.split()[0]
    more = {"image_encoder": model.with_name("vision")} if name == "ip_adapter" else {}
    config = dataclasses.replace(CASES[case], model=model, **more)
    assets = config.assets(folder, cases.DATA, source=Pairs(), new=True)
    task = config.task(assets)
    rows = [task.example(Pairs()[0], np.random.default_rng(0))]
    batch = {key: np.stack([row[key] for row in rows]) for key in rows[0]}
    made = task.init(cases.first_key(), task.load(cases.one_device), batch)
    strength = STRENGTH.get(name, 0.3)
    moved = {}
    for path, x in flatten(made.params).items():
        each = 0.1 * strength if path.endswith("magnitude") else strength
        moved[path] = jnp.asarray(np.asarray(x) + np.float32(each) * noise(path, x.shape))
    return config, assets, Variables(unflatten(moved), made.frozen)


class Pairs(cases.Given):
    """Pictures whose hints are never read."""

    def names(self):
        return [f"{i}.png" for i in range(cases.COUNT)]

    def hints(self):
        return [pathlib.Path(name) for name in self.names()]


def write(case, config, assets, weights, folder):
    """Writes what the run gives, and returns its path."""
    name, _, layout = case.split()
    if name in ("instruct", "inpaint"):
        write_directory(config.bundle(assets, weights), folder / "whole")
        return folder / "whole"
    out = folder / ("part" if name in ("controlnet", "t2i_adapter") else "part.safetensors")
    config.apart(assets, weights, out, layout)(out)
    return out


def save_base(index, folder):
    """Writes the model of finetune.npz with an offset that every pipeline reads.

    Its scheduler says 1 and that this is its class' default, which is 0: diffusers' plain pipeline mends that, and
    those with ControlNets and adapters do not.
    """
    cases.save(index, folder)
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(
        json.dumps(mend.changed(json.loads(path.read_text()), steps_offset=index["scheduler"]["steps_offset"]))
    )
    return folder


def save_vision(path):
    """Writes CLIP's image encoder, for IP-adapters."""
    kind = "CLIPVisionModelWithProjection"
    write_component(small.tiny({"_class_name": kind, "architectures": [kind], **VISION}), path)
