"""Training: the step, the optimizer, checkpoints, and the loop that ties them together."""

from jaxdiff.training.checkpoint import CheckpointConfig, MismatchError, SaveError, load_params
from jaxdiff.training.ema import make_ema
from jaxdiff.training.evaluate import make_eval_step, make_evaluate
from jaxdiff.training.faults import NonFiniteLoss
from jaxdiff.training.loop import TrainConfig, fit
from jaxdiff.training.manifest import DamagedError
from jaxdiff.training.optimizer import OptimizerConfig, guarded, make_optimizer
from jaxdiff.training.state import TrainState, make_init_state
from jaxdiff.training.step import make_train_step
from jaxdiff.training.task import Known, LossFn, Preview, Task, Variables

__all__ = [
    "CheckpointConfig",
    "DamagedError",
    "Known",
    "LossFn",
    "MismatchError",
    "NonFiniteLoss",
    "OptimizerConfig",
    "Preview",
    "SaveError",
    "Task",
    "TrainConfig",
    "TrainState",
    "Variables",
    "fit",
    "guarded",
    "load_params",
    "make_ema",
    "make_eval_step",
    "make_evaluate",
    "make_init_state",
    "make_optimizer",
    "make_train_step",
]
