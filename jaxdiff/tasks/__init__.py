"""The kinds of task that can be trained: each module with a `Config` is one, where network, objective and data meet."""

from jaxdiff.tasks.task import KINDS, TaskConfig

__all__ = ["KINDS", "TaskConfig"]
