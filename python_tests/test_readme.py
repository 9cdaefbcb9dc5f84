"""The README says what the code says."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def test_tables_are_those_of_the_code():
    sys.path.insert(0, str(ROOT))
    from bench.readme_tables import updated

    assert updated(README) == README, "run `python -m bench.readme_tables`"


def test_python_examples_run():
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert blocks
    for block in blocks:
        subprocess.run([sys.executable, "-W", "error", "-c", block], check=True)


def test_named_files_exist():
    for name in re.findall(r"`((?:csrc|mtl_ext|python_tests|bench)/[\w./]+)`", README):
        placeholder = re.search(r"[/_]x\.", name)
        assert placeholder or (ROOT / name).exists(), name
