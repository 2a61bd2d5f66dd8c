"""`jaxdiff PROGRAM ...`: finds the program, and turns the errors a user can mend into one message."""

import importlib
import os
import sys
from pathlib import Path

PROGRAMS = {
    "train": "train a model from a config file; resumes by itself",
    "sample": "make pictures with a trained model",
    "convert": "write a model in another format, for other tools",
    "evaluate": "measure the quality of a model or of a folder of pictures",
    "benchmark": "measure speed, also beside PyTorch",
}


def main(argv: list[str] | None = None) -> None:
    """Runs a program; the exit status is 0, 1 for an error that the message explains, 2 for a wrong command line."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] not in PROGRAMS:
        lines = "".join(f"  {name:10} {what}\n" for name, what in PROGRAMS.items())
        asked = bool(argv) and argv[0] in ("-h", "--help")
        if argv and not asked:
            print(f"jaxdiff: no program {argv[0]!r}", file=sys.stderr)
        print(f"usage: jaxdiff PROGRAM ...\n\n{lines}\njaxdiff PROGRAM --help lists its options.", file=sys.stderr)
        sys.exit(0 if asked else 2)
    try:
        importlib.import_module(f"jaxdiff.cli.{argv[0]}").main(argv[1:])
    except (ValueError, OSError, FloatingPointError) as error:
        if os.environ.get("JAXDIFF_TRACEBACK"):
            raise
        print(f"jaxdiff {argv[0]}: {error}\n(JAXDIFF_TRACEBACK=1 shows where.)", file=sys.stderr)
        sys.exit(1)


def compilation_cache() -> None:
    """Keeps compiled programs on disk, so that a second start takes seconds; JAX_COMPILATION_CACHE_DIR says where."""
    import jax

    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(home / "jaxdiff" / "xla"))


if __name__ == "__main__":
    main()
