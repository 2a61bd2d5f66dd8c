"""The same as `jaxdiff evaluate`."""

import sys

from jaxdiff.cli.main import main

main(["evaluate", *sys.argv[1:]])
