"""What is learned: data, models, losses. Nothing in this room knows time, graphs or policies.

`build_task` makes a task from the words of the command line; `from_arrays` makes one from a user's own loss function
and arrays. Both return a `Task`, which is all that the rest of the house reads.
"""

from dbwjax.tasks.datasets import DATASETS, build_task
from dbwjax.tasks.models import MODELS
from dbwjax.tasks.partition import PARTITIONS
from dbwjax.tasks.task import Task, from_arrays, of_one_width

__all__ = ["DATASETS", "MODELS", "PARTITIONS", "Task", "build_task", "from_arrays", "of_one_width"]
