"""What can be trained: each module with a `Config` is a kind of task, where network, objective and data meet."""

from jaxdiff.tasks.task import KINDS, TaskConfig

__all__ = ["KINDS", "TaskConfig"]
