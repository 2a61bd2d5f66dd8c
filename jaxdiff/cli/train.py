"""`jaxdiff train CONFIG.py [--field.name value ...] [--workdir DIR]`."""

import dataclasses
import functools
import importlib.util
import itertools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import jax
import numpy as np
import tyro
from jax.experimental import multihost_utils

from jaxdiff import data, experiment, parallel, training
from jaxdiff.cli.main import compilation_cache
from jaxdiff.cli.progress import progress
from jaxdiff.data.grid import grid, save_png
from jaxdiff.data.tokenizer import BytePair
from jaxdiff.experiment import Experiment
from jaxdiff.pipelines.bundles import diffusion_bundle
from jaxdiff.pipelines.diffusion import DiffusionPipeline
from jaxdiff.pretrained import scheduler
from jaxdiff.tasks.picture import SCHEDULES, make_task
from jaxdiff.training import checkpoint
from jaxdiff.typing import Params

USAGE = """usage: jaxdiff train CONFIG.py [--workdir DIR] [--FIELD VALUE ...]

CONFIG.py holds `def config() -> Experiment`; see configs/. `jaxdiff train CONFIG.py --help` lists its fields.
A workdir that has a checkpoint is resumed, with the config saved in it and the fields given now.
"""


@dataclasses.dataclass(frozen=True)
class Run:
    """A training run.

    Attributes:
      workdir: gets config.json, checkpoints/, samples/, metrics.jsonl and tensorboard/.
      experiment: what to train.
    """

    workdir: Path
    experiment: Annotated[Experiment, tyro.conf.arg(name="")]


def parse(argv: list[str]) -> Run:
    """The run that a command line asks for."""
    if not argv or argv[0].startswith("-"):
        print(USAGE, file=sys.stderr)
        sys.exit(0 if argv and argv[0] in ("-h", "--help") else 2)
    default = read_config(Path(argv[0]))
    types = tyro.conf.AvoidSubcommands[Run]
    prog = f"jaxdiff train {argv[0]}"
    run = tyro.cli(types, args=argv[1:], default=Run(Path("runs") / default.name, default), prog=prog)
    if (run.workdir / "config.json").is_file() and checkpoint.steps(run.workdir / "checkpoints"):
        saved = experiment.read(run.workdir)
        again = tyro.cli(types, args=argv[1:], default=Run(run.workdir, saved), prog=prog)
        if again != run:
            print(f"{run.workdir} goes on with its own config.json, which differs from {argv[0]}", flush=True)
        run = again
    return run


def read_config(path: Path) -> Experiment:
    """The experiment that a config file describes."""
    if not path.is_file():
        near = ", ".join(sorted(str(p) for p in path.parent.glob("*.py"))) if path.parent.is_dir() else ""
        raise FileNotFoundError(f"no config file {path}" + (f"; there are {near}" if near else ""))
    spec = importlib.util.spec_from_file_location("jaxdiff_config", path)
    assert spec is not None
    assert spec.loader is not None
    sys.path.insert(0, str(path.parent.absolute()))  # a config may start from one beside it
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not callable(getattr(module, "config", None)):
        raise ValueError(f"{path} is no config: it must define `def config() -> Experiment`")
    return module.config()


def main(argv: list[str]) -> None:
    """Trains, from the last checkpoint if there is one."""
    run = parse(argv)
    config, workdir = run.experiment, run.workdir
    experiment.check(config)
    compilation_cache()

    source = data.open_source(config.data)
    encode, vocabulary = None, None
    workdir.mkdir(parents=True, exist_ok=True)
    if config.process.condition == "text":
        path = workdir / "vocabulary.json"
        vocabulary = BytePair.from_json(path.read_text()) if path.is_file() else None
        vocabulary = vocabulary or BytePair.learn(source.captions(), config.vocabulary)
        path.write_text(vocabulary.to_json())
        encode = _encoder(vocabulary, config.text.length)
    if config.process.condition == "class":
        if len(source.labels) != config.unet.labels:
            raise ValueError(
                f"unet.labels is {config.unet.labels}, but {config.data.name} has {len(source.labels)} classes"
            )
        (workdir / "labels.txt").write_text("\n".join(source.labels))
    (workdir / "config.json").write_text(experiment.to_json(config))

    empty = encode("") if encode else None
    task = make_task(config.model, empty)
    optimizer, ema = training.make_optimizer(config.optimizer, config.train.steps), training.make_ema(config.ema)
    program = parallel.compile(
        functools.partial(training.make_train_step, task.loss, optimizer, ema, accumulate=config.train.accumulate),
        training.make_init_state(task.init, optimizer),
        config.spec,
        task.rules,
    )
    read = functools.partial(
        data.batches,
        batch_size=config.train.batch_size,
        encode=encode,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    stream = read(source, config.data, seed=config.seed)
    evaluate = None
    if config.held_out:
        held_config = dataclasses.replace(config.data, split=config.held_out, flip=False)
        held_out = data.open_source(held_config)
        whole = dataclasses.replace(config.model, unet=dataclasses.replace(config.unet, dropout=0.0))
        evaluate = training.make_evaluate(
            parallel.compile(
                functools.partial(training.make_eval_step, make_task(whole, empty).loss),
                training.make_init_state(task.init, optimizer),
                config.spec,
                task.rules,
            ),
            lambda: itertools.islice(read(held_out, held_config, seed=0), config.held_out_batches),
            jax.random.key(1),
            config.train.batch_size,
        )
    sizes = jax.tree.map(lambda x: x.size, jax.eval_shape(task.init, jax.random.key(0)))
    print(
        f"{config.name}: {len(source)} pictures, {sum(jax.tree.leaves(sizes)) / 1e6:.2f}M parameters, "
        f"{jax.device_count()} {jax.devices()[0].platform} device(s), {config.strategy}; writes to {workdir}",
        flush=True,
    )
    preview = _previewer(config, vocabulary, source.labels, workdir)
    with progress(config.train.steps, config.train.batch_size) as report:
        state = training.fit(
            program,
            stream,
            jax.random.key(config.seed),
            workdir,
            config.train,
            config.checkpoint,
            report=report if jax.process_index() == 0 else None,
            preview=preview if config.preview.prompts else None,
            evaluate=evaluate,
        )
    stream.close()
    done = int(state.step)
    print(f"step {done} of {config.train.steps}: checkpoint in {workdir / 'checkpoints' / str(done)}", flush=True)
    if done < config.train.steps:
        print("stopped by a signal; the same command goes on from here", flush=True)


def _encoder(vocabulary: BytePair, length: int) -> Callable[[str], np.ndarray]:
    return lambda text: vocabulary.encode(text, length)


def _previewer(
    config: Experiment, vocabulary: BytePair | None, labels: Sequence[str], workdir: Path
) -> Callable[[int, Params], None]:
    """Writes samples/STEP.png, from the whole weights on this process' devices."""
    wanted, process = config.preview, config.process
    made: list[DiffusionPipeline] = []

    def pipeline(params: Params) -> DiffusionPipeline:
        bundle = diffusion_bundle(
            config.unet,
            params,
            process=scheduler.native(SCHEDULES[process.schedule](), process.prediction, clip=1.0),
            size=config.data.size,
            text=config.text if process.condition == "text" else None,
            vocabulary=vocabulary,
            labels=labels if process.condition == "class" else (),
        )
        made.append(made.pop() if made else DiffusionPipeline(bundle))
        made[0].params |= {name: part.params for name, part in bundle.components.items()}
        return made[0]

    def preview(step: int, params: Params) -> None:
        if jax.process_count() > 1:
            params = multihost_utils.process_allgather(params, tiled=True)
        if jax.process_index():
            return
        images = pipeline(params)(
            wanted.prompts,
            key=jax.random.key(wanted.seed),
            steps=wanted.steps,
            sampler=wanted.sampler,
            guidance=wanted.guidance,
        )
        path = workdir / "samples" / f"{step:06d}.png"
        save_png(path, grid(images, wanted.prompts), {"step": step, **dataclasses.asdict(wanted)})
        print(f"step {step}: {path}", flush=True)

    return preview


if __name__ == "__main__":
    main(sys.argv[1:])
