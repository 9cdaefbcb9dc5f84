"""One file per operator with its rows: what the tests and the benchmarks know about it.

Adding an operator adds a file whose CASES list holds its rows; nothing else changes here.
"""

import importlib
import pkgutil

CASES = {}
for module in pkgutil.iter_modules(__path__):
    for case in getattr(importlib.import_module(f"{__name__}.{module.name}"), "CASES", ()):
        CASES[case.op] = case
