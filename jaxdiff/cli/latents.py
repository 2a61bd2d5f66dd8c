"""`jaxdiff latents CONFIG.py --autoencoder RUN_OR_DIR --out DIR`: pictures to latents, once, to be trained on.

What is slow to import is imported when it is needed, so that the usage is there at once.
"""

import sys

USAGE = """usage: jaxdiff latents CONFIG.py --autoencoder RUN_OR_DIR --out DIR [--small] [--OPTION VALUE ...]

Encodes the data of a config, and those of its `held_out` split, which `jaxdiff train CONFIG.py --data.name DIR` then
reads. `jaxdiff latents CONFIG.py --help` lists the options. The same command resumes where it was stopped.
"""


def main(argv: list[str]) -> None:
    """Encodes what is not there yet."""
    if not argv or argv[0].startswith("-"):
        asked = bool(argv) and argv[0] in ("-h", "--help")
        print(USAGE, file=sys.stdout if asked else sys.stderr)
        sys.exit(0 if asked else 2)
    from jaxdiff.cli import latents_run

    latents_run.run(argv)
