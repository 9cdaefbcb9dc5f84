"""Names of tasks: a self-auxiliary task is called ``SOURCE->TARGET``, any other one is a primary task."""

Pair = tuple[str, str]
"""Source s and target t of a self-auxiliary task: it has the data and labels of s, and the path of t."""

ARROW = "->"


def self_auxiliary_name(source: str, target: str) -> str:
    """The name of the self-auxiliary task of a pair."""
    return f"{source}{ARROW}{target}"


def split_name(task: str) -> Pair:
    """Source and target of a task by its name; a primary task is both of its own."""
    source, arrow, target = task.partition(ARROW)
    return (source, target) if arrow else (task, task)


def is_primary(task: str) -> bool:
    """Whether a name is that of a primary task."""
    return ARROW not in task
