// The Python module `mtl_ext._emulation`. Importing it registers the emulated CUDA operators (by the static
// registrations of csrc/cuda/*.cpp, namespace mtl_ext_emulation); its functions choose the schedule of their launches.
#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>

#include "emulation/controls.h"
#include "emulation/launches.h"

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

py::list take_launches() {
  using namespace py::literals;
  py::list launches;
  for (const cuemu::LaunchRecord& launch : cuemu::take_launches()) {
    const auto size = [](const dim3& d) { return py::make_tuple(d.x, d.y, d.z); };
    launches.append(py::dict("file"_a = launch.where.file_name(), "line"_a = launch.where.line(),
                             "function"_a = launch.where.function_name(), "grid"_a = size(launch.grid),
                             "block"_a = size(launch.block), "shared_bytes"_a = launch.shared_bytes));
  }
  return launches;
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
  module.def("take_launches", &take_launches,
             "The launches since the last call, at most 256, oldest first: dicts of file, line, function (with its "
             "template arguments), grid, block and shared_bytes.");
  cuemu::controls();  // a misspelt CUEMU_ORDER, CUEMU_SEED or CUEMU_THREADS fails the import
}
