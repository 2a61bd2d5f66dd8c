"""`jaxdiff evaluate --model DIR --reference openmoji ...`.

What is slow to import is imported when it is needed, so that --help and mistakes are answered at once.
"""

import tyro

from jaxdiff.cli.main import compilation_cache
from jaxdiff.evaluation.config import EvaluateConfig


def main(argv: list[str]) -> None:
    """Measures, and prints the table."""
    config = tyro.cli(EvaluateConfig, args=argv, prog="jaxdiff evaluate")
    from jaxdiff.cli.progress import counting
    from jaxdiff.evaluation.run import evaluate

    compilation_cache()
    print(evaluate(config, counting, lambda text: print(text, flush=True)))
    print(f"\nwritten to {config.workdir}")
