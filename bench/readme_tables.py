"""The README's tables of operators and methods, written from the code: `python -m bench.readme_tables`."""

import inspect
import re
import sys
from pathlib import Path

from mtl_ext.methods import METHODS
from mtl_ext.ops import OPERATORS

ROOT = Path(__file__).resolve().parent.parent


def first_sentence(text: str | None) -> str:
    """The summary line of a docstring, its paragraph joined."""
    return " ".join(inspect.cleandoc(text or "").partition("\n\n")[0].split())


def kernel_files(device: str) -> set[str]:
    """Operators that a device's folder registers."""
    return {
        name
        for file in (ROOT / "csrc" / device).glob("*.cpp")
        for name in re.findall(r'm\.impl\("(\w+)"', file.read_text())
    }


def operators_table() -> str:
    """One row per operator."""
    rows = ["| operator | what it computes | CPU kernel | CUDA kernel |", "|---|---|---|---|"]
    for name, operator in OPERATORS.items():
        public = getattr(sys.modules["mtl_ext.ops"], name)
        marks = ["yes" if name in kernel_files(device) else "reference" for device in ("cpu", "cuda")]
        rows.append(f"| `{name}{operator.schema}` | {first_sentence(public.__doc__)} | {' | '.join(marks)} |")
    return "\n".join(rows)


def methods_table() -> str:
    """One row per method."""
    rows = ["| method | acts on | what it does |", "|---|---|---|"]
    acts_on = {"loss": "losses", "gradient": "gradients, at parameter or feature level"}
    for name, method in METHODS.items():
        rows.append(f"| `{name}` | {acts_on[method.level]} | {first_sentence(method.__doc__)} |")
    return "\n".join(rows)


def updated(readme: str) -> str:
    """The README with its generated parts made anew."""
    for name, table in (("operators", operators_table()), ("methods", methods_table())):
        pattern = rf"(<!-- {name} -->\n).*?(<!-- end -->)"
        readme = re.sub(pattern, lambda match, table=table: match[1] + table + "\n" + match[2], readme, flags=re.DOTALL)
    return readme


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(updated(path.read_text()))
