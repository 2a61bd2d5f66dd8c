"""`jaxdiff PROGRAM ...`: finds the program, and turns the errors a user can mend into one message."""

import contextlib
import importlib
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

from jaxdiff import __version__

PROGRAMS = {
    "train": "train a model from a config file, or resume its run",
    "latents": "encode the pictures of a data set once, to train on their latents",
    "sample": "make pictures with a trained model",
    "convert": "write a model in another format, for other tools",
    "evaluate": "measure the quality of a model or of a folder of pictures",
    "compare": "train several models on one budget, and compare them in one table",
    "benchmark": "measure speed, optionally against PyTorch",
}
HELP = ("-h", "--help")
USAGE = (
    "usage: jaxdiff PROGRAM ...\n\n"
    + "".join(f"  {name:10} {what}\n" for name, what in PROGRAMS.items())
    + "\njaxdiff PROGRAM --help lists its options; --debug shows where an error comes from; jaxdiff --version."
)


def main(argv: list[str] | None = None) -> None:
    """Runs a program; the exit status is 0, 1 for an error that the message explains, 2 for a wrong command line."""
    argv = sys.argv[1:] if argv is None else argv
    debug = "--debug" in argv or bool(os.environ.get("JAXDIFF_TRACEBACK"))
    argv = [word for word in argv if word != "--debug"]
    name = argv[0] if argv else ""
    if name == "--version":
        print(f"jaxdiff {__version__}")
        return
    if name in HELP:
        print(USAGE)
        sys.exit(0)
    if name not in PROGRAMS:
        print(f"jaxdiff: no program {name!r}\n{USAGE}" if name else USAGE, file=sys.stderr)
        sys.exit(2)
    try:
        with plain_warnings():
            importlib.import_module(f"jaxdiff.cli.{name}").main(argv[1:])
    except KeyboardInterrupt:
        if debug:
            raise
        print("", file=sys.stderr)
        sys.exit(130)
    except (ValueError, OSError, FloatingPointError, MemoryError, RuntimeError) as error:
        if debug or (message := _message(error)) is None:
            raise
        print(f"jaxdiff {name}: {_process()}{message}", file=sys.stderr, flush=True)
        sys.exit(1)


@contextlib.contextmanager
def plain_warnings() -> Iterator[None]:
    """Prints each warning, within, as one line on standard error, without its place in the code."""

    def show(message: Warning | str, *_: object, **__: object) -> None:
        print(f"warning: {' '.join(str(message).split())}", file=sys.stderr, flush=True)

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.filterwarnings("ignore", module="tyro")  # what it finds odd in a config's types, `check` refuses
        warnings.showwarning = show
        yield


def _message(error: BaseException) -> str | None:
    """Returns a user's message for an error, on one line; None: it is a fault of the program, with a traceback."""
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text:
        return "memory ran out: make smaller or fewer pictures at once, split the weights (--mesh.fsdp), or use --dtype"
    if isinstance(error, RuntimeError) and not isinstance(error, ValueError | OSError):
        return None
    return f"{text} (--debug shows where)"


def _process() -> str:
    """Tells which process of several speaks, if there are several."""
    started = sys.modules.get("jaxdiff.training.distributed")
    return started.name() if started else ""


def compilation_cache() -> None:
    """Keeps compiled programs on disk, so that a second start takes seconds; JAX_COMPILATION_CACHE_DIR says where."""
    import jax

    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(home / "jaxdiff" / "xla"))


if __name__ == "__main__":
    main()
