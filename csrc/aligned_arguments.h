// What aligned accepts, on every device: the twin of the checks in mtl_ext/ops/aligned.py.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "common/kxk/aligned.h"
#include "gram_arguments.h"

namespace mtl {

inline AlignedScale aligned_scale(const char* op, const std::string& name) {
  if (name == "min") return AlignedScale::kMin;
  if (name == "median") return AlignedScale::kMedian;
  MTL_CHECK(name == "rmse", op, ": scale_mode is '", name, "', expected 'min', 'median' or 'rmse'");
  return AlignedScale::kRmse;
}

inline Aligned check_aligned(const char* op, const Tensor& gram, const std::optional<Tensor>& preference,
                             const std::string& scale_mode, double eps) {
  check_gram(op, gram, /*batched=*/true);
  const AlignedScale scale = aligned_scale(op, scale_mode);
  MTL_CHECK(eps >= 0 && eps < 1, op, ": eps is ", eps,
            ", expected at least 0 and below 1 (the machine epsilon of the gradients)");
  if (preference) {
    const auto sizes = gram.sizes();
    const std::vector<int64_t> own(sizes.begin(), sizes.end() - 1), shared{sizes.back()};
    const std::string batched = own.size() == 1 ? "" : " or [..., K] = " + list_name(own);
    MTL_CHECK(equal(preference->sizes(), shared) || equal(preference->sizes(), own), op, ": preference has shape ",
              list_name(preference->sizes()), ", expected [K] = ", list_name(shared), batched);
    MTL_CHECK(preference->scalar_type() == ScalarType::Double, op, ": preference has dtype ",
              dtype_name(preference->scalar_type()), ", expected torch.float64");
    MTL_CHECK(same_device(*preference, gram), op, ": preference is on ", device_name(*preference), ", expected ",
              device_name(gram), " as gram");
  }
  return {scale, eps, preference.has_value()};
}

// One row for each matrix: [..., 1, K].
inline std::optional<Tensor> preference_rows(const Tensor& gram, const std::optional<Tensor>& preference) {
  if (!preference) return std::nullopt;
  std::vector<int64_t> shape(gram.sizes().begin(), gram.sizes().end());
  shape[shape.size() - 2] = 1;
  Tensor rows = torch::stable::new_empty(gram, shape);
  torch::stable::copy_(rows, torch::stable::unsqueeze(*preference, -2));
  return rows;
}

// Takes the dimension of the rows back out of a solver's results.
inline std::tuple<Tensor, Tensor, Tensor> without_rows(const std::tuple<Tensor, Tensor, Tensor>& results, bool rows) {
  if (!rows) return results;
  const auto& [weights, certificate, status] = results;
  return {torch::stable::squeeze(weights, -2), torch::stable::squeeze(certificate, -1),
          torch::stable::squeeze(status, -1)};
}

}  // namespace mtl
