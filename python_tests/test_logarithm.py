"""The vector logarithm of the CPU kernels."""

from pathlib import Path

from emulation import toolchain


@toolchain.needs_compiler
def test_vector_logarithm_keeps_its_stated_accuracy():
    source = Path(toolchain.__file__).parent / "logarithm_accuracy.cpp"
    done = toolchain.run(toolchain.build("logarithm_accuracy", [source], "plain"))
    assert (done.returncode, done.stderr) == (0, "")
