"""The same as `jaxdiff convert`."""

import sys

from jaxdiff.cli.main import main

main(["convert", *sys.argv[1:]])
