"""Builds `mtl_ext._C`: CPU and CUDA kernels in one stable-ABI library (see the README's build section).

Switches, all environment variables:
    MTL_EXT_CUDA=auto|0|1        CUDA kernels when nvcc is found (default), never, or fail without nvcc.
    TORCH_CUDA_ARCH_LIST         CUDA architectures, default "8.0;9.0+PTX".
    MTL_EXT_EMULATION=1          also build `mtl_ext._emulation`: the CUDA sources compiled for the CPU, for the tests.
    MTL_EXT_REQUIRE_KERNELS=1    fail when there is no C++20 compiler instead of installing the references alone.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from torch.utils.cpp_extension import BuildExtension, CppExtension, get_cxx_compiler

CSRC = Path("csrc")
STABLE_ABI = ["-DTORCH_TARGET_VERSION=0x020d000000000000"]
CXX_FLAGS = [
    "-std=c++20",
    "-O3",
    "-ffp-contract=fast",
    "-Wall",
    "-Wextra",
    "-Wno-unknown-pragmas",
    "-Wno-unused-parameter",
    "-Wno-psabi",
    "-fvisibility=hidden",
]
NVCC_FLAGS = ["-std=c++20", "-O3", "-lineinfo", "-Xptxas=-v", "-Xcompiler=-fPIC,-fvisibility=hidden", "-DMTL_WITH_CUDA"]


def sources(pattern: str) -> list[str]:
    return sorted(str(path) for path in CSRC.glob(pattern))


def has_cxx20_compiler() -> bool:
    """Whether the compiler that torch would use accepts C++20."""
    compiler = get_cxx_compiler()
    if shutil.which(compiler) is None:
        return False
    with tempfile.TemporaryDirectory() as folder:
        probe = Path(folder, "probe.cpp")
        probe.write_text("#include <version>\ntemplate <class T> concept Any = true;\n")
        return (
            subprocess.run([compiler, "-std=c++20", "-fsyntax-only", str(probe)], capture_output=True).returncode == 0
        )


def cuda_home() -> Path | None:
    """The CUDA toolkit: CUDA_HOME, else where nvcc says it lives (the nvcc on PATH may be a wrapper elsewhere)."""
    wanted = os.environ.get("MTL_EXT_CUDA", "auto")
    if wanted not in ("auto", "0", "1"):
        sys.exit(f"MTL_EXT_CUDA={wanted!r}: expected auto, 0 or 1")
    if wanted == "0":
        return None
    for name in ("CUDA_HOME", "CUDA_PATH"):
        if os.environ.get(name) and Path(os.environ[name], "bin/nvcc").exists():
            return Path(os.environ[name])
    if shutil.which("nvcc"):
        command = ["nvcc", "--dryrun", "-E", "-x", "cu", os.devnull]
        report = subprocess.run(command, capture_output=True, text=True).stderr
        here = [line.split("_HERE_=")[1].strip() for line in report.splitlines() if "_HERE_=" in line]
        if here:
            return Path(here[0]).parent
    if wanted == "1":
        sys.exit("MTL_EXT_CUDA=1 but no nvcc was found: set CUDA_HOME")
    return None


def architectures() -> list[str]:
    return [name for name in os.environ.get("TORCH_CUDA_ARCH_LIST", "8.0;9.0+PTX").replace(" ", ";").split(";") if name]


def gencode(architecture: str) -> list[str]:
    number = architecture.removesuffix("+PTX").replace(".", "")
    flags = [f"-gencode=arch=compute_{number},code=sm_{number}"]
    if architecture.endswith("+PTX"):
        flags.append(f"-gencode=arch=compute_{number},code=compute_{number}")
    return flags


class BuildKernels(BuildExtension):
    """Compiles the torch-free `.cu` files itself; the rest is torch's own BuildExtension, one build folder each."""

    def build_extension(self, extension: Extension) -> None:
        shared_folder = self.build_temp
        self.build_temp = str(Path(shared_folder, extension.name).absolute())
        home = cuda_home()
        if extension.name == "mtl_ext._emulation":
            self.compile_cu(extension, [get_cxx_compiler(), *CXX_FLAGS, "-fPIC", "-DMTL_EMULATION", "-x", "c++"])
        elif home is not None:
            self.add_cuda(extension, home)
        super().build_extension(extension)
        self.build_temp = shared_folder

    def compile_cu(self, extension: Extension, compiler: list[str]) -> None:
        folder = Path(self.build_temp, "cu")
        folder.mkdir(parents=True, exist_ok=True)

        def compile_one(source: str) -> str:
            target = str(folder / Path(source).with_suffix(".o").name)
            command = [*compiler, f"-I{CSRC}", "-c", source, "-o", target]
            done = subprocess.run(command, capture_output=True, text=True)
            print(" ".join(command), done.stdout + done.stderr, sep="\n", flush=True)
            if done.returncode:
                sys.exit(f"{compiler[0]} failed on {source}")
            return target

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            extension.extra_objects = list(pool.map(compile_one, sources("cuda/*.cu")))

    def add_cuda(self, extension: Extension, home: Path) -> None:
        targets = [flag for name in architectures() for flag in gencode(name)]
        self.compile_cu(extension, [str(home / "bin/nvcc"), *NVCC_FLAGS, *targets])
        extension.sources = extension.sources + sources("cuda/*.cpp")
        extension.include_dirs.append(str(home / "include"))
        names = " ".join(architectures())
        extension.extra_compile_args["cxx"] += ["-DUSE_CUDA", "-DMTL_WITH_CUDA", f'-DMTL_CUDA_ARCHITECTURES="{names}"']
        libraries = [home / name for name in ("lib64", "lib", "targets/x86_64-linux/lib")]
        runtime = next(path / "libcudart_static.a" for path in libraries if (path / "libcudart_static.a").exists())
        extension.extra_link_args += [str(runtime), "-lrt", "-lpthread", "-ldl"]


def extensions() -> list[Extension]:
    if not has_cxx20_compiler():
        message = f"mtl_ext: no C++20 compiler ({get_cxx_compiler()!r}); installing the PyTorch references alone"
        if os.environ.get("MTL_EXT_REQUIRE_KERNELS") == "1":
            sys.exit(message)
        print(message, file=sys.stderr)
        return []
    kernels = CppExtension(
        "mtl_ext._C",
        [str(CSRC / "module.cpp"), *sources("cpu/*.cpp")],
        include_dirs=[str(CSRC.resolve())],
        extra_compile_args={"cxx": CXX_FLAGS + STABLE_ABI},
        py_limited_api=True,
    )
    if os.environ.get("MTL_EXT_EMULATION") != "1":
        return [kernels]
    emulation = CppExtension(
        "mtl_ext._emulation",
        [*sources("emulation/*.cpp"), *sources("cuda/*.cpp")],
        include_dirs=[str(CSRC.resolve())],
        extra_compile_args={"cxx": [*CXX_FLAGS, *STABLE_ABI, "-DMTL_EMULATION"]},
    )
    return [kernels, emulation]


setup(
    ext_modules=extensions(),
    cmdclass={"build_ext": BuildKernels},
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
