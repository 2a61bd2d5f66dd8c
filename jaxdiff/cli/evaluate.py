"""`jaxdiff evaluate --model DIR --reference openmoji ...`."""

import tyro

from jaxdiff.cli.main import compilation_cache
from jaxdiff.cli.progress import counting
from jaxdiff.evaluation.config import EvaluateConfig
from jaxdiff.evaluation.run import evaluate


def main(argv: list[str]) -> None:
    """Measures, and prints the table."""
    config = tyro.cli(EvaluateConfig, args=argv, prog="jaxdiff evaluate")
    compilation_cache()
    print(evaluate(config, counting, lambda text: print(text, flush=True)))
    print(f"\nwritten to {config.workdir}")
