"""`python -m jaxdiff PROGRAM ...`."""

from jaxdiff.cli.main import main

main()
