// project_simplex's argument, checked, with its results: the same for every device.
#pragma once

#include "common/kxk/project_simplex.h"
#include "gram_arguments.h"

namespace mtl {

// Checks values [..., K].
inline void check_values(const char* op, const Tensor& values) {
  MTL_CHECK(values.dim() >= 1 && values.sizes().back() >= 1, op, ": values has shape ", list_name(values.sizes()),
            ", expected [..., K] with K at least 1");
  MTL_CHECK(values.scalar_type() == ScalarType::Double, op, ": values has dtype ", dtype_name(values.scalar_type()),
            ", expected torch.float64");
}

struct SimplexArguments {
  Tensor values;                               // contiguous
  std::tuple<Tensor, Tensor, Tensor> results;  // empty yet

  SimplexArguments(const char* op, const Tensor& found) {
    check_values(op, found);
    values = torch::stable::contiguous(found);
    results = solver_results(values, {values.sizes().begin(), values.sizes().end()});
  }

  SimplexBatch batch() const {
    const auto& [weights, certificate, status] = results;
    return {certificate.numel(),
            static_cast<int>(values.sizes().back()),
            values.const_data_ptr<double>(),
            weights.mutable_data_ptr<double>(),
            certificate.mutable_data_ptr<double>(),
            status.mutable_data_ptr<int32_t>()};
  }
};

}  // namespace mtl
