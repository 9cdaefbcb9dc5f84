// What the operators on Gram matrices accept, and the results that they allocate: the twin of the checks of the same
// names in mtl_ext/ops/checks.py.
#pragma once

#include <optional>
#include <tuple>
#include <vector>

#include "task_grads.h"

namespace mtl {

// Checks a [K, K] float64 Gram matrix, or a batch of them where `batched`.
inline void check_gram(const char* op, const Tensor& gram, bool batched) {
  const auto sizes = gram.sizes();
  const size_t dim = sizes.size();
  MTL_CHECK((batched ? dim >= 2 : dim == 2) && sizes[dim - 1] == sizes[dim - 2] && sizes[dim - 1] >= 1, op,
            ": gram has shape ", list_name(sizes), ", expected ", batched ? "[..., K, K]" : "[K, K]",
            " with K at least 1");
  MTL_CHECK(gram.scalar_type() == ScalarType::Double, op, ": gram has dtype ", dtype_name(gram.scalar_type()),
            ", expected torch.float64 (as ops.gram returns it)");
}

// Checks dual_cone's lower bounds [..., M, K] against its Gram matrices [..., K, K].
inline void check_lower(const char* op, const Tensor& lower, const Tensor& gram) {
  const auto sizes = lower.sizes(), expected = gram.sizes();
  const size_t dim = expected.size();
  bool fits = sizes.size() == dim && sizes.back() == expected.back();
  for (size_t i = 0; fits && i + 2 < dim; ++i) fits = sizes[i] == expected[i];
  MTL_CHECK(fits, op, ": lower has shape ", list_name(sizes),
            ", expected [..., M, K] where gram is [..., K, K] = ", list_name(expected));
  MTL_CHECK(lower.scalar_type() == ScalarType::Double, op, ": lower has dtype ", dtype_name(lower.scalar_type()),
            ", expected torch.float64");
  MTL_CHECK(same_device(lower, gram), op, ": lower is on ", device_name(lower), ", expected ", device_name(gram),
            " as gram");
}

// Checks FairGrad's fairness.
inline void check_alpha(const char* op, double alpha) {
  MTL_CHECK(alpha > 0 && std::isfinite(alpha), op, ": alpha is ", alpha, ", expected a finite number above 0");
}

// Checks cagrad's radius and the epsilon of its gradients.
inline void check_cagrad(const char* op, double c, double eps) {
  MTL_CHECK(c >= 0 && std::isfinite(c), op, ": c is ", c, ", expected a finite number of at least 0");
  MTL_CHECK(eps > 0 && eps < 1, op, ": eps is ", eps, ", expected a number between 0 and 1");
}

// What a solver returns: weights of a shape [..., K], certificate [...] and int32 status [...], empty yet, on the
// device of its problem.
inline std::tuple<Tensor, Tensor, Tensor> solver_results(const Tensor& problem, const std::vector<int64_t>& shape) {
  const std::vector<int64_t> batch(shape.begin(), shape.end() - 1);
  return {torch::stable::new_empty(problem, shape), torch::stable::new_empty(problem, batch),
          torch::stable::new_empty(problem, batch, ScalarType::Int)};
}

// For gram [..., K, K], or for rows [..., M, K] of which M problems each share a matrix.
inline std::tuple<Tensor, Tensor, Tensor> solver_results(const Tensor& gram,
                                                         const std::optional<Tensor>& rows = std::nullopt) {
  const auto sizes = rows ? rows->sizes() : gram.sizes().slice(0, gram.dim() - 1);
  return solver_results(gram, std::vector<int64_t>(sizes.begin(), sizes.end()));
}

// Checks the orders [K, K - 1], or one per Gram matrix, of what visits each task's others in turn.
inline void check_order(const char* op, const Tensor& order, const Tensor& gram) {
  const int64_t k = gram.sizes().back();
  std::vector<int64_t> shape(gram.sizes().begin(), gram.sizes().end());
  shape.back() = k - 1;
  const std::vector<int64_t> shared{k, k - 1};
  const std::string batched = shape.size() == 2 ? "" : " or [..., K, K - 1] = " + list_name(shape);
  MTL_CHECK(equal(order.sizes(), shared) || equal(order.sizes(), shape), op, ": order has shape ",
            list_name(order.sizes()), ", expected [K, K - 1] = ", list_name(shared), batched);
  MTL_CHECK(order.scalar_type() == ScalarType::Long, op, ": order has dtype ", dtype_name(order.scalar_type()),
            ", expected torch.int64");
  MTL_CHECK(same_device(order, gram), op, ": order is on ", device_name(order), ", expected ", device_name(gram),
            " as gram");
}

// Checks an argument that has a Gram matrix's shape, dtype and device.
inline void check_like_gram(const char* op, const char* name, const Tensor& tensor, const Tensor& gram) {
  MTL_CHECK(equal(tensor.sizes(), gram.sizes()), op, ": ", name, " has shape ", list_name(tensor.sizes()),
            ", expected ", list_name(gram.sizes()), " as gram");
  MTL_CHECK(tensor.scalar_type() == gram.scalar_type(), op, ": ", name, " has dtype ", dtype_name(tensor.scalar_type()),
            ", expected ", dtype_name(gram.scalar_type()), " as gram");
  MTL_CHECK(same_device(tensor, gram), op, ": ", name, " is on ", device_name(tensor), ", expected ", device_name(gram),
            " as gram");
}

}  // namespace mtl
