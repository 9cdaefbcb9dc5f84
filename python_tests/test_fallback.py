"""The package without its compiled library: everything works on the references, and says so once."""

import os
import subprocess
import sys
import textwrap

import pytest

WITHOUT_LIBRARY = "import sys; sys.modules['mtl_ext._C'] = None\n"


def run(code, **environment):
    env = {**os.environ, "MTL_EXT_REQUIRE_KERNELS": "0", **environment}
    command = [sys.executable, "-c", WITHOUT_LIBRARY + textwrap.dedent(code)]
    return subprocess.run(command, env=env, capture_output=True, text=True, cwd=os.path.dirname(__file__))


def test_references_serve_and_say_so_once():
    done = run("""
        import warnings
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            from mtl_ext import ops
            import mtl_ext.methods
        assert len(caught) == 1, caught
        assert "compiled kernels are not available" in str(caught[0].message)
        assert not any(ops.has_kernel(name, device) for name in ops.OPERATORS for device in ("cpu", "cuda"))
        import torch
        x = torch.zeros(3, requires_grad=True)
        mtl_ext.methods.PCGrad().backward(torch.tensor([[-4.0, 1, 1], [6, 1, 1]]) @ x, shared=[x])
        torch.testing.assert_close(x.grad, torch.tensor([0.5848, 3.8012, 3.8012]), rtol=0, atol=1e-4)
    """)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("op", ["gram", "combine", "combine_", "pcgrad", "min_norm"])
def test_opcheck_without_the_library(op):
    done = run(f"""
        import warnings
        warnings.simplefilter("ignore")
        import torch
        from op_cases import CASES
        from test_ops import OPCHECK_ROWS, copied
        rows = CASES[{op!r}].inputs(0, torch.device("cpu"))
        for name in [name for name in rows if name in OPCHECK_ROWS][:3]:
            torch.library.opcheck(torch.ops.mtl_ext.{op}.default, copied(rows[name]))
    """)
    assert done.returncode == 0, done.stderr


def test_a_missing_library_is_an_error_where_kernels_are_required():
    done = run("import mtl_ext", MTL_EXT_REQUIRE_KERNELS="1")
    assert done.returncode != 0
    assert "ModuleNotFoundError: import of mtl_ext._C halted" in done.stderr


def test_a_missing_kernel_fails_its_tests_where_kernels_are_required():
    code = """
        import warnings, pytest
        warnings.simplefilter("ignore")
        import mtl_ext, os
        os.environ["MTL_EXT_REQUIRE_KERNELS"] = {required!r}
        arguments = ["-q", "-p", "no:cacheprovider", "test_ops.py", "-k", "values and pcgrad and kernel"]
        sys.exit(pytest.main(arguments))
    """
    assert "1 skipped" in run(code.format(required="0")).stdout
    required = run(code.format(required="1"))
    assert required.returncode == 1
    assert "MTL_EXT_REQUIRE_KERNELS=1, but pcgrad has no kernel for cpu" in required.stdout


def test_import_adds_little_over_torch():
    """No plotting, command-line or table library is imported with the package."""
    done = run("""
        import warnings
        warnings.simplefilter("ignore")
        import mtl_ext, mtl_ext.methods
        heavy = {"rich", "jsonargparse", "matplotlib", "tensorboard", "pandas", "scipy", "mlxtend", "yaml"}
        assert not heavy & set(sys.modules), heavy & set(sys.modules)
    """)
    assert done.returncode == 0, done.stderr
