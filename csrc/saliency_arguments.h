// What the saliency entropy's kernels share on every device.
#pragma once

#include <numeric>
#include <vector>

#include "task_grads.h"

namespace mtl {

inline int64_t num_positions(const TaskGrads& grads) {
  return std::accumulate(grads.numel.begin(), grads.numel.end(), int64_t{0});
}

// New tensors for the positions' entropies, in the layout of each parameter: float32, float64 for float64.
inline std::vector<Tensor> new_map(const TaskGrads& grads) {
  std::vector<Tensor> map;
  for (int64_t param = 0; param < grads.num_params; ++param) {
    const Tensor& like = grads.tensors[grads.first[param] < 0 ? param : grads.first[param]];
    const bool wide = like.scalar_type() == ScalarType::Double || like.scalar_type() == ScalarType::Float;
    // The stable ABI's empty_like takes no dtype; a converted copy has the strides too.
    map.push_back(wide ? torch::stable::empty_like(like)
                       : torch::stable::to(like, ScalarType::Float, {}, {}, {}, /*non_blocking=*/false, /*copy=*/true));
  }
  return map;
}

}  // namespace mtl
