// What graddrop, graddrop_ and graddrop_features accept, on every device: the twin of check_graddrop in
// mtl_ext/ops/checks.py.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "task_grads.h"

namespace mtl {

struct DropArguments {
  TaskGrads grads;
  std::vector<Tensor> features;  // [P] in the layout of `out`, none for graddrop
  std::vector<Tensor> out;       // [P], new ones unless given; each prescribes the layout of its parameter
  std::optional<Tensor> seed;    // [2] int64, or none:
  std::vector<Tensor> uniform;   // [P] float32 in the layout of `out`
  std::optional<Tensor> leak;    // [K] float64

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

// P float32 tensors of the parameters' shapes, or of those of one sample.
inline void check_uniform(const char* op, const std::vector<Tensor>& uniform, const TaskGrads& grads, bool per_sample) {
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
    const std::vector<int64_t> shape(like.sizes().begin() + (per_sample ? 1 : 0), like.sizes().end());
    const std::vector<int64_t> sizes(found.sizes().begin(), found.sizes().end());
    MTL_CHECK(sizes == shape, op, ": ", name, " has shape ", list_name(sizes), ", expected ", list_name(shape),
              per_sample ? " as a sample of" : " as in", " grads[", grads.first[param], "]");
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

// Checks and takes what the mask depends on besides the gradients.
inline void take_draw(const char* op, DropArguments& arguments, const std::optional<Tensor>& seed,
                      const std::vector<Tensor>& uniform, const std::optional<Tensor>& leak, bool per_sample) {
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
    return;
  }
  check_uniform(op, uniform, grads, per_sample);
  for (int64_t param = 0; param < grads.num_params; ++param) {
    const bool absent = grads.first[param] < 0;
    const Tensor& out = arguments.out[param];
    arguments.uniform.push_back(
        absent ? uniform[param] : uniform_like(per_sample ? torch::stable::select(out, 0, 0) : out, uniform[param]));
  }
}

inline DropArguments check_graddrop(const char* op, const std::vector<Tensor>* out, std::vector<Tensor> list,
                                    int64_t num_tasks, const std::optional<Tensor>& seed,
                                    const std::vector<Tensor>& uniform, const std::optional<Tensor>& leak) {
  DropArguments arguments{check_task_grads(op, std::move(list), num_tasks, out), {}, {}, {}, {}, {}};
  const TaskGrads& grads = arguments.grads;
  for (int64_t param = 0; param < grads.num_params; ++param) {
    const int64_t first = grads.first[param];
    arguments.out.push_back(out != nullptr ? (*out)[param]
                                           : torch::stable::empty_like(grads.tensors[first < 0 ? param : first]));
  }
  take_draw(op, arguments, seed, uniform, leak, /*per_sample=*/false);
  return arguments;
}

// Whether a dense tensor [B, ...] is B samples one after the other.
inline bool batch_outermost(const Tensor& tensor) {
  return tensor.size(0) == 1 || tensor.stride(0) == tensor.numel() / tensor.size(0);
}

inline void check_features(const char* op, const std::vector<Tensor>& features, const TaskGrads& grads) {
  check_like(op, "features", features, grads);
  for (int64_t param = 0; param < grads.num_params; ++param) {
    MTL_CHECK(grads.first[param] < 0 || features[param].dim() > 0, op, ": features[", param,
              "] has shape [], expected [B, ...] with the batch in front");
  }
}

// Features and gradients are walked sample by sample in the layout of the result: that of the gradients where they
// agree on one that has the batch outermost, else contiguous.
inline DropArguments check_graddrop_features(const char* op, std::vector<Tensor> list, int64_t num_tasks,
                                             std::vector<Tensor> features, const std::optional<Tensor>& seed,
                                             const std::vector<Tensor>& uniform, const std::optional<Tensor>& leak) {
  DropArguments arguments{read_list(op, std::move(list), num_tasks), std::move(features), {}, {}, {}, {}};
  TaskGrads& grads = arguments.grads;
  check_features(op, arguments.features, grads);
  for (int64_t param = 0; param < grads.num_params; ++param) {
    const int64_t first = grads.first[param];
    const Tensor& like = grads.tensors[first < 0 ? param : first];
    const bool keeps = first < 0 || (share_layout(grads, param) && batch_outermost(like));
    const auto sizes = like.sizes();
    arguments.out.push_back(keeps ? torch::stable::empty_like(like)
                                  : torch::stable::new_empty(like, std::vector<int64_t>(sizes.begin(), sizes.end())));
    Tensor& feature = arguments.features[param];
    if (first >= 0 && !same_layout(feature, arguments.out[param])) {
      feature = gather_like(arguments.out[param], feature);
    }
  }
  lay_out(grads, &arguments.out);
  take_draw(op, arguments, seed, uniform, leak, /*per_sample=*/true);
  return arguments;
}

}  // namespace mtl
