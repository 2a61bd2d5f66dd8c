"""The same as `jaxdiff sample`."""

import sys

from jaxdiff.cli.main import main

main(["sample", *sys.argv[1:]])
