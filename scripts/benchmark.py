"""The same as `jaxdiff benchmark`."""

import sys

from jaxdiff.cli.main import main

main(["benchmark", *sys.argv[1:]])
