"""`jaxdiff train CONFIG.py [--field.name value ...] [--workdir DIR]`.

What takes long to import is imported where it is used, so that the usage is there at once.
"""

import contextlib
import sys
from typing import Any

USAGE = """usage: jaxdiff train CONFIG.py [--workdir DIR] [--small] [--dry-run ...] [--FIELD VALUE ...]

CONFIG.py holds `def config() -> Experiment`; see configs/. `jaxdiff train CONFIG.py --help` lists its fields.
--small runs what the config's `def small()` gives: the same kind of run, done in seconds.
--dry-run says what a run would take, also on chips that are not here (--topology v5e:16x16), and trains nothing.
A workdir (by default runs/NAME) that has a checkpoint is resumed, with the config saved in it and the fields given now.
"""


def main(argv: list[str]) -> None:
    """Trains, from the last checkpoint if there is one."""
    if not argv or argv[0].startswith("-"):
        asked = bool(argv) and argv[0] in ("-h", "--help")
        print(USAGE, file=sys.stdout if asked else sys.stderr)
        sys.exit(0 if asked else 2)
    from jaxdiff.cli.train_args import split, steps

    how, rest = split(argv[1:])
    if how.distributed and not how.dry_run:
        from jaxdiff.training import distributed

        distributed.start(how.distributed)
    from jaxdiff.cli.memory import keep_freed

    ready = None
    if how.executable:
        from jaxdiff.parallel import executable

        ready = executable.read(how.executable)
        keep_freed()
        ready.begin("step", "keys")  # loaded while the rest is imported
    from jaxdiff import experiment, trainer
    from jaxdiff.cli.config import parse
    from jaxdiff.cli.main import compilation_cache
    from jaxdiff.cli.progress import progress

    config, workdir = parse([argv[0], *rest], say)
    if how.dry_run:
        dry_run(config, how)
        return
    if ready is None:
        keep_freed()  # not before, since it asks for the devices, which --help does not need
    experiment.check(config)
    compilation_cache()
    with contextlib.ExitStack() as stack:
        bar: list[Any] = []

        def report(step: int, metrics: Any) -> None:
            if not bar:  # not before, since what is prepared has bars of its own
                bar.append(stack.enter_context(progress(config.train.steps, config.train.batch_size)))
            bar[0](step, metrics)

        state = trainer.run(config, workdir, report, say, ready, profile=steps(how.profile) if how.profile else None)
    done = int(state.step)
    say(f"step {done} of {config.train.steps}: checkpoint in {workdir / 'checkpoints' / str(done)}")
    if done < config.train.steps:
        say("stopped by a signal; the same command resumes here")


def dry_run(config: Any, how: Any) -> None:
    """Says what a run would take."""
    from jaxdiff.cli.progress import stages
    from jaxdiff.dryrun import training
    from jaxdiff.metrics import chips

    topology = chips.parse(how.topology, how.slices) if how.topology else None
    with stages(f"dry run of {config.name}") as tell:
        lines: list[str] = []
        try:
            training.run(config, topology, compile=how.compile, save=how.save_executable, say=lines.append, tell=tell)
        finally:
            print("", *lines, sep="\n", flush=True)


def say(text: str) -> None:
    """Prints a line at once, in the first process of several."""
    started = sys.modules.get("jaxdiff.training.distributed")
    if not (started and started.index()):
        print(text, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
