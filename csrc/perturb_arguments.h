// What the two halves of a finite difference accept, on every device: the twin of the checks in mtl_ext/ops/perturb.py
// and mtl_ext/ops/finite_difference.py.
#pragma once

#include <vector>

#include "named_lists.h"

namespace mtl {

// Parameters and direction as two rows. Where a parameter is absent, so is its direction.
inline TaskGrads check_perturb(const char* op, const std::vector<Tensor>& params, const std::vector<Tensor>& direction,
                               const NamedLists& writes) {
  const TaskGrads rows = check_named_lists(op, {{"params", &params}, {"direction", &direction}}, writes);
  for (int64_t param = 0; param < rows.num_params; ++param) {
    MTL_CHECK(rows.present(0, param) || !rows.present(1, param), op, ": params[", param, "] has shape ",
              list_name(params[param].sizes()), ", expected ", list_name(direction[param].sizes()), " as direction[",
              param, "]");
  }
  return rows;
}

// The gradients at both sides as two rows, and eps, a float64 scalar.
inline TaskGrads check_difference(const char* op, const std::vector<Tensor>& plus, const std::vector<Tensor>& minus,
                                  const Tensor& eps, const NamedLists& writes) {
  TaskGrads rows = check_named_lists(op, {{"plus", &plus}, {"minus", &minus}}, writes);
  MTL_CHECK(eps.dim() == 0, op, ": eps has shape ", list_name(eps.sizes()), ", expected []");
  MTL_CHECK(eps.scalar_type() == ScalarType::Double, op, ": eps has dtype ", dtype_name(eps.scalar_type()),
            ", expected torch.float64");
  MTL_CHECK(same_device(eps, plus[0]), op, ": eps is on ", device_name(eps), ", expected ", device_name(plus[0]),
            " as plus[0]");
  return rows;
}

}  // namespace mtl
