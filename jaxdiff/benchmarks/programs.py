"""The compiled programs that are measured, by name: what one is called with, and what a call of it makes."""

import dataclasses
import difflib
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxdiff import parallel, sampling, training
from jaxdiff.benchmarks import subject as subjects
from jaxdiff.benchmarks.subject import BenchModel
from jaxdiff.diffusion import denoiser
from jaxdiff.diffusion.schedule import scaled_linear
from jaxdiff.models.autoencoder_kl import unscaled
from jaxdiff.models.unet import UNet
from jaxdiff.parallel import MeshSpec, make_mesh
from jaxdiff.parallel.spread import jit_forward
from jaxdiff.pipelines import inputs as pipeline_inputs
from jaxdiff.pipelines import plan
from jaxdiff.pipelines.model import make_model
from jaxdiff.pipelines.program import make_program
from jaxdiff.typing import Cond

VARIANTS = 3
"""Inputs that a program is called with in turn, so that no two calls in a row are the same."""


@dataclasses.dataclass(frozen=True)
class BenchProgram:
    """A program, ready to be compiled and called.

    Attributes:
      name: in `CASES`.
      program: the jitted function.
      arguments: i -> the arguments of call i, on the devices.
      images: that a call reads or makes.
      dtype: dtype of the products in it.
      calls: calls of the network in one call.
      bare: the same calls of the network alone, where the cost of what is around them is of interest.
      keep: takes the result of a call that consumed its arguments.
    """

    name: str
    program: Any
    arguments: Callable[[int], tuple[Any, ...]]
    images: int
    dtype: str
    calls: int = 1
    bare: Callable[[int], Any] | None = None
    keep: Callable[[Any], None] = lambda result: None

    def __call__(self, i: int) -> Any:
        """Returns the result of call i."""
        result = self.program(*self.arguments(i))
        self.keep(result)
        return result


Devices = Sequence[jax.Device]


def _spread(function: Callable[..., Any], params: Any, batches: list[Any], devices: Devices) -> tuple[Any, Any]:
    """Returns `function(whole, *batch)` as a program that splits the batch over devices, and its arguments."""
    mesh = make_mesh(MeshSpec(), devices)
    everywhere, split = NamedSharding(mesh, P()), NamedSharding(mesh, P(("data", "fsdp")))
    program = jit_forward(
        function, devices[0].platform, in_shardings=(everywhere, *[split] * len(batches[0])), out_shardings=split
    )
    params = jax.device_put(params, everywhere)
    placed = [jax.device_put(batch, split) for batch in batches]
    return program, lambda i: (params, *placed[i % VARIANTS])


def unet(subject: BenchModel, batch: int, devices: Devices, steps: int) -> BenchProgram:
    """Returns the U-Net once."""
    inputs = [subjects.noisy(subject, batch, seed) for seed in range(VARIANTS)]
    program, arguments = _spread(_apply(subject), subjects.unet_params(subject), inputs, devices)
    return BenchProgram("unet", program, arguments, batch, subject.unet.dtype)


def _apply(subject: BenchModel) -> Callable[..., Any]:
    return lambda params, x, t, fields: UNet(subject.unet).apply({"params": params}, x, t, Cond(**fields))


def loop(subject: BenchModel, batch: int, devices: Devices, steps: int) -> BenchProgram:
    """Returns the sampling loop of `steps` calls of the U-Net, without guidance, beside as many bare calls."""
    inputs = [subjects.noisy(subject, batch, seed) for seed in range(VARIANTS)]
    keys = jax.random.split(jax.random.key(0), batch)
    process = subject.trained.native if subject.trained else None
    schedule = process.schedule if process else scaled_linear()
    table = jax.tree.map(np.float32, sampling.make_table("ddim", schedule, steps))
    network: Any = UNet(subject.unet)
    kind, says = (process.kind, process.says) if process else ("eps", "prediction")
    apply = lambda params, x, t, cond: network.apply({"params": params}, x, t, cond)

    def sample(weights_and_table: Any, x: jax.Array, t: jax.Array, fields: Any, keys: jax.Array) -> Any:
        params, table = weights_and_table
        denoise = denoiser.make(apply, params, Cond(**fields), None, schedule, kind, says)
        return sampling.run(table, denoise, x, keys)

    weights_and_table = (subjects.unet_params(subject), table)
    program, arguments = _spread(sample, weights_and_table, [(*more, keys) for more in inputs], devices)
    alone, its_arguments = _spread(_apply(subject), arguments(0)[0][0], inputs, devices)

    def bare(i: int) -> jax.Array:
        params, x, t, fields = its_arguments(i)
        for _ in range(steps):
            x = alone(params, x, t, fields)
        return x

    return BenchProgram("loop", program, arguments, batch, subject.unet.dtype, steps, bare)


def text_to_image(subject: BenchModel, batch: int, devices: Devices, steps: int) -> BenchProgram:
    """Makes the program from tokens to uint8 pictures, guided, so that the U-Net sees twice as many.

    Prompts are numbers.
    """
    bundle = subjects.bundle(subject)
    model = make_model(bundle)
    numbers = plan.make(
        model.process,
        bundle.schedulers.get("scheduler"),
        steps=steps,
        weights=pipeline_inputs.weights(model, (), (), 0),
        guidance=bundle.guidance or 1.0,
        rescale=0.0,
        picture_guidance=1.5,
    )
    size = (model.factor * subject.side,) * 2
    batches = []
    for seed in range(VARIANTS):
        one: dict[str, Any] = {"keys": jax.random.split(jax.random.key(seed), batch)}
        one |= pipeline_inputs.first_noise(model, None, batch, size)
        if model.reads:
            encode = functools.partial(pipeline_inputs.encoded, model, bundle.tokenizers, chunks=1, size=size)
            prompts = [
                f"{seed} {i}" if model.texts else model.labels[(seed + i) % len(model.labels)] for i in range(batch)
            ]
            one["prompt"] = encode(prompts, True, score=pipeline_inputs.GOOD)
            one["negative"] = encode([""] * batch, len(model.texts) < 2, score=pipeline_inputs.BAD)
        batches.append((one,))
    params = {name: part.params for name, part in bundle.components.items()}
    program, arguments = _spread(make_program(model), (params, numbers), batches, devices)
    return BenchProgram("text-to-image", program, arguments, batch, subject.unet.dtype, calls=steps)


def train_step(subject: BenchModel, batch: int, devices: Devices, steps: int) -> BenchProgram:
    """Makes forward, backward, optimizer and average of the weights, as `jaxdiff train` runs them."""
    config = subject.experiment
    assert config is not None, "check"
    task, _ = subjects.made_up(config)
    optimizer = training.make_optimizer(config.optimizer, config.train.steps, task.groups)
    ema = training.make_ema(config.ema)
    step = functools.partial(training.make_train_step, task, optimizer, ema, accumulate=config.train.accumulate)
    rows = [subjects.batch(config, task, batch, seed) for seed in range(VARIANTS)]
    program = parallel.compile(
        step, training.make_init_state(task, optimizer), {}, rows[0], MeshSpec(), task.rules, devices
    )
    # each leaf a copy of its own, since a step consumes them
    state = [jax.device_put(subjects.random_state(program.like), program.shardings, may_alias=False)]
    batches = [(program.put(one), program.keys(jax.random.key(1), seed, batch)) for seed, one in enumerate(rows)]

    def keep(result: Any) -> None:
        state[0] = result[0]

    return BenchProgram(
        "train-step",
        program.jitted,  # what is below the mesh's context, which `measure` gives
        lambda i: (state[0], *batches[i % VARIANTS]),
        batch,
        subject.unet.dtype,
        keep=keep,
    )


def text_encoder(subject: BenchModel, batch: int, devices: Devices, steps: int) -> BenchProgram:
    """Returns the text encoder once."""
    text = subject.text
    assert text is not None, "check"
    inputs = [(subjects.tokens(subject, batch, seed),) for seed in range(VARIANTS)]
    apply = lambda params, ids: text.apply({"params": params}, ids)
    program, arguments = _spread(apply, subjects.text_params(subject), inputs, devices)
    return BenchProgram("text-encoder", program, arguments, batch, text.config.dtype)


def decoder(subject: BenchModel, batch: int, devices: Devices, steps: int) -> BenchProgram:
    """Makes the program from latents to pictures."""
    net = subject.decoder
    assert net is not None, "check"
    latents = [(subjects.noisy(subject, batch, seed)[0],) for seed in range(VARIANTS)]
    picture = jnp.zeros((1, 8 * 8, 8 * 8, 3))
    params = subjects.random_params(jax.eval_shape(net.init, jax.random.key(0), picture)["params"])
    apply = lambda params, z: net.apply({"params": params}, unscaled(net.config, z), method="decode")
    program, arguments = _spread(apply, params, latents, devices)
    return BenchProgram("decoder", program, arguments, batch, net.config.dtype)


CASES: dict[str, Callable[[BenchModel, int, Devices, int], BenchProgram]] = {
    "unet": unet,
    "train-step": train_step,
    "loop": loop,
    "text-to-image": text_to_image,
    "text-encoder": text_encoder,
    "decoder": decoder,
}
HOST = ("loader", "checkpoint")
"""The programs that run on the host; see `benchmarks.host`."""


def applicable(subject: BenchModel) -> list[str]:
    """Returns the names of everything that this subject has."""
    missing = {"text-encoder": subject.text is None, "decoder": subject.decoder is None}
    missing |= dict.fromkeys(("train-step", *HOST), subject.experiment is None)
    return [name for name in (*CASES, *HOST) if not missing.get(name)]


def check(names: Sequence[str], subject: BenchModel) -> None:
    """Refuses what cannot be measured.

    Raises:
      ValueError: lists what can be, the nearest first.
    """
    known = applicable(subject)
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=2, cutoff=0.4)
            listed = ", ".join([*near, *(n for n in known if n not in near)])
            raise ValueError(f"{subject.name} has no {name!r} to measure: expected some of {listed}")
