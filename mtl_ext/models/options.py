"""Checks of the networks' options."""


def check_counts(**values: object) -> None:
    """Checks arguments that count something.

    Raises:
        ValueError: naming one that is not a whole number of at least 1.
    """
    for name, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} is {value!r}, expected a whole number of at least 1")
