"""What tasks on a model of others write is read by `jaxdiff.load`, and gives the pictures that the run itself gives."""

import jax
import numpy as np
import pytest
from pipelines import small
from tasks import published_cases as cases
from tasks.published_cases import SIZE, made, started, walk

from jaxdiff import loading
from jaxdiff.parallel import MeshSpec
from jaxdiff.pretrained.write import write_directory
from jaxdiff.training import Variables

pytestmark = pytest.mark.heavy
TAKES = {
    "controlnet": ("hints",), "t2i_adapter": ("hints",), "instruct": ("image",), "inpaint": ("image", "mask"),
    "ip_adapter": ("picture",),
}  # fmt: skip
LOADED = {"controlnet": "controlnets", "t2i_adapter": "adapter", "ip_adapter": "ip_adapter", "lcm_lora": "loras"}
ONE = {"devices": jax.devices()[:1]}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return cases.save(tmp_path_factory.mktemp("models"))


def inputs(name, which):
    image = small.picture(f"seen {which}")
    given = {"hints": [image], "image": image, "picture": image, "mask": small.mask()}
    return {one: given[one] for one in TAKES.get(name, ())}


@pytest.mark.parametrize("name", ["lcm", "lcm told", "lcm_lora", "progressive", "dmd", *TAKES])
def test_what_is_written_is_sampled_as_the_run_is(name, model, tmp_path):
    config = cases.fitted(name, model)
    task, assets = made(config, tmp_path)
    optimizer, state = started(task)
    after = walk(task, optimizer, state, 3)
    weights = Variables(after.params, after.frozen)
    pipe = config.pipeline(assets, weights, MeshSpec())
    options = {"steps": 2, "guidance": None, "height": SIZE, "width": SIZE}
    prompts = ["a heart", "a star"]
    ours = pipe(prompts, key=jax.random.key(1), **options, **inputs(name, 0))
    if name in TAKES:
        other = pipe(prompts, key=jax.random.key(1), **options, **inputs(name, 1))
        assert np.any(ours != other), "it does not see what it is given"
    if name == "lcm told":
        far = pipe(prompts, key=jax.random.key(1), **{**options, "guidance": 9.0})
        assert np.any(ours != far), "it does not see the scale of guidance that it is told"
    if name in LOADED:
        out = tmp_path / ("out.safetensors" if name in ("ip_adapter", "lcm_lora") else "out")
        config.apart(assets, weights, out, "diffusers")(out)
        given = {LOADED[name]: [out] if LOADED[name].endswith("s") else out}
        given |= {"image_encoder": model.with_name("vision")} if name == "ip_adapter" else {}
        read = loading.load(model, **given, **ONE)
        options |= {"sampler": "lcm"} if name == "lcm_lora" else {}
    else:
        write_directory(config.bundle(assets, weights), tmp_path / "out")
        read = loading.load(tmp_path / "out", **ONE)
    theirs = read(prompts, key=jax.random.key(1), **options, **inputs(name, 0))
    assert np.abs(ours.astype(int) - theirs).max() <= 1
