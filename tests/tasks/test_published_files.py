"""Files that runs on a model of others write give jaxdiff the pictures that they give diffusers."""

import jax
import numpy as np
import pytest
from pipelines import small
from reference import finetune_files_cases as files
from reference.sd_weights import load

from jaxdiff import loading

pytestmark = pytest.mark.heavy
INDEX, _ = load(small.REFERENCE / "finetune.npz")
PICTURES = np.load(small.REFERENCE / "finetune_files.npz")
OPTIONS = {
    "lora": "loras", "dora": "loras", "textual_inversion": "textual_inversions", "controlnet": "controlnets",
    "t2i_adapter": "adapter", "ip_adapter": "ip_adapter",
}  # fmt: skip
MOST = 2
"""Of 255: sums in another order, through a few steps and an autoencoder."""


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    files.save_vision(root / "vision")
    return {version: files.save_base(INDEX[version], root / version) for version in INDEX}


def drawn(pipe, name):
    given = {"controlnet": {"hints": [files.hint()]}, "t2i_adapter": {"hints": [files.hint()]}}
    given |= {"ip_adapter": {"picture": files.hint()}}
    given |= {"instruct": {"image": files.hint(), "picture_guidance": files.PICTURE_GUIDANCE}}
    given |= {"inpaint": {"image": files.hint(), "mask": files.mask()[None, ..., None]}}
    options = {"steps": files.STEPS, "guidance": files.GUIDANCE, "height": files.SIZE, "width": files.SIZE}
    first = files.first().transpose(0, 2, 3, 1)
    return pipe(files.PROMPT, key=jax.random.key(0), init_noise=first, **options, **given.get(name, {}))[0]


def off(picture, case):
    """The largest difference from diffusers' picture, of 255."""
    return np.abs(picture.astype(float) - PICTURES[case] / 257).max()


@pytest.mark.parametrize("case", files.CASES)
def test_a_file_gives_the_pictures_that_it_gives_diffusers(case, models, tmp_path):
    name, version, _ = case.split()
    out = files.write(case, *files.prepared(case, models[version], tmp_path), tmp_path)
    one = {"devices": jax.devices()[:1]}
    if name in ("instruct", "inpaint"):
        pipe = loading.load(out, **one)
    else:
        path = f"{out}:<toy>" if name == "textual_inversion" and version == "xl" else out
        option = OPTIONS[name]
        more = {"image_encoder": models[version].with_name("vision")} if name == "ip_adapter" else {}
        pipe = loading.load(models[version], **{option: [path] if option.endswith("s") else path}, **more, **one)
    picture = drawn(pipe, name)
    assert off(picture, case) <= MOST
    assert off(picture, f"base {version}") > 20 * MOST, "the file changes next to nothing"
