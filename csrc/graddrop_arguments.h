// What graddrop and graddrop_ accept, on every device: the twin of check_graddrop in mtl_ext/ops/checks.py.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "task_grads.h"

namespace mtl {

struct DropArguments {
  TaskGrads grads;
  std::vector<Tensor> out;      // [P], new ones unless given; each prescribes the layout of its parameter
  std::optional<Tensor> seed;   // [2] int64, or none:
  std::vector<Tensor> uniform;  // [P] float32 in the layout of `out`
  std::optional<Tensor> leak;   // [K] float64

  const int64_t* seed_data() const { return seed ? seed->const_data_ptr<int64_t>() : nullptr; }
  const double* leak_data() const { return leak ? leak->const_data_ptr<double>() : nullptr; }
};

inline void check_leak(const char* op, const Tensor& leak, const TaskGrads& grads) {
  MTL_CHECK(leak.dim() == 1 && leak.size(0) == grads.num_tasks, op, ": leak has shape ", list_name(leak.sizes()),
            ", expected [K] = [", grads.num_tasks, "]");
  check_vector(op, "leak", leak, ScalarType::Double, grads.tensors);
}

inline void check_seed(const char* op, const Tensor& seed, const TaskGrads& grads) {
  MTL_CHECK(seed.dim() == 1 && seed.size(0) == 2, op, ": seed has shape ", list_name(seed.sizes()),
            ", expected [2] (seed, step)");
  check_vector(op, "seed", seed, ScalarType::Long, grads.tensors);
}

inline void check_uniform(const char* op, const std::vector<Tensor>& uniform, const TaskGrads& grads) {
  MTL_CHECK(static_cast<int64_t>(uniform.size()) == grads.num_params, op, ": len(uniform) is ", uniform.size(),
            ", expected ", grads.num_params, " = len(grads) / K");
  for (int64_t param = 0; param < grads.num_params; ++param) {
    if (grads.first[param] < 0) continue;
    const Tensor& like = grads.tensors[grads.first[param]];
    const Tensor& found = uniform[param];
    const std::string name = "uniform[" + std::to_string(param) + "]";
    MTL_CHECK(same_device(found, like), op, ": ", name, " is on ", device_name(found), ", expected ",
              device_name(like));
    MTL_CHECK(found.scalar_type() == ScalarType::Float, op, ": ", name, " has dtype ", dtype_name(found.scalar_type()),
              ", expected torch.float32");
    MTL_CHECK(equal(found.sizes(), like.sizes()), op, ": ", name, " has shape ", list_name(found.sizes()),
              ", expected ", list_name(like.sizes()), " as in grads[", grads.first[param], "]");
  }
}

// `uniform` in the layout of `out`.
inline Tensor uniform_like(const Tensor& out, const Tensor& uniform) {
  if (same_layout(uniform, out)) return uniform;
  // The stable ABI's empty_like takes no dtype; a converted copy has the strides too.
  Tensor copy = torch::stable::to(out, ScalarType::Float, {}, {}, {}, /*non_blocking=*/false, /*copy=*/true);
  torch::stable::copy_(copy, uniform);
  return copy;
}

inline DropArguments check_graddrop(const char* op, const std::vector<Tensor>* out, std::vector<Tensor> list,
                                    int64_t num_tasks, const std::optional<Tensor>& seed,
                                    const std::vector<Tensor>& uniform, const std::optional<Tensor>& leak) {
  DropArguments arguments{check_task_grads(op, std::move(list), num_tasks, out), {}, {}, {}, {}};
  const TaskGrads& grads = arguments.grads;
  MTL_CHECK(seed.has_value() == uniform.empty(), op, ": expected either seed or uniform, found ",
            seed ? "both" : "neither");
  if (leak) {
    check_leak(op, *leak, grads);
    arguments.leak = torch::stable::contiguous(*leak);
  }
  if (seed) {
    check_seed(op, *seed, grads);
    arguments.seed = torch::stable::contiguous(*seed);
  } else {
    check_uniform(op, uniform, grads);
  }
  for (int64_t param = 0; param < grads.num_params; ++param) {
    const int64_t first = grads.first[param];
    arguments.out.push_back(out != nullptr ? (*out)[param]
                                           : torch::stable::empty_like(grads.tensors[first < 0 ? param : first]));
    if (!seed)
      arguments.uniform.push_back(first < 0 ? uniform[param] : uniform_like(arguments.out[param], uniform[param]));
  }
  return arguments;
}

}  // namespace mtl
