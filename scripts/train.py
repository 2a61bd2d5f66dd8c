"""The same as `jaxdiff train`."""

import sys

from jaxdiff.cli.main import main

main(["train", *sys.argv[1:]])
