"""Runs `jaxdiff ARGS` as one of several processes: launch.py PORT INDEX COUNT ARGS."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from together import join

if __name__ == "__main__":
    join(*sys.argv[1:4])
    from jaxdiff.cli.main import main

    main(sys.argv[4:])
