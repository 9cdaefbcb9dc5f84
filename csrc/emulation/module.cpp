// The Python module `mtl_ext._emulation`. Importing it registers the emulated CUDA operators (by the static
// registrations of csrc/cuda/*.cpp, namespace mtl_ext_emulation); its functions choose the schedule of their launches.
#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>

#include "emulation/controls.h"

namespace py = pybind11;

namespace {

py::dict get_controls() {
  using namespace py::literals;
  const cuemu::Controls& controls = cuemu::controls();
  return py::dict("order"_a = cuemu::order_name(controls.order), "seed"_a = controls.seed,
                  "threads"_a = controls.threads);
}

void set_controls(const std::string& order, uint64_t seed, uint64_t threads) {
  cuemu::controls() = {cuemu::parse_order(order), seed, cuemu::checked_threads(threads)};
}

}  // namespace

PYBIND11_MODULE(_emulation, module) {
  module.doc() = "The CUDA kernels' own source on the CPU, as torch operators `mtl_ext_emulation::<op>`.";
  module.def("get_controls", &get_controls, "The controls in force, as keyword arguments of set_controls.");
  module.def("set_controls", &set_controls, py::arg("order"), py::arg("seed"), py::arg("threads"),
             "Chooses the schedule of the launches to come.\n\n"
             "Args:\n"
             "    order: fwd, rev or rand: the turns of blocks, warps and lanes.\n"
             "    seed: of the order rand.\n"
             "    threads: OS threads that share the blocks of a launch, 1 to 1024.\n\n"
             "Raises:\n"
             "    ValueError: there is no such order, or threads is out of range.");
  cuemu::controls();  // a misspelt CUEMU_ORDER, CUEMU_SEED or CUEMU_THREADS fails the import
}
