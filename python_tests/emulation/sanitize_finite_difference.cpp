#include "cuda/finite_difference.h"
#include "sanitize.h"

using namespace sanitize;

namespace {

// `in_place`: the outputs are the memory of the upper gradients. eps = 0: what is not to be read holds NaN.
void check(const std::vector<Parameter>& params, double size, bool accumulate, bool in_place) {
  Rows rows(3, params);  // the gradients at both sides, then the outputs
  if (in_place) rows.alias(2, 0);
  const mtl::TensorLists& lists = rows.lists();
  Guarded<double> eps(1);
  eps[0] = size;
  std::vector<std::vector<double>> expected(lists.num_params), bound(lists.num_params);
  for (int64_t param = 0; param < lists.num_params; ++param) {
    const double half_ulp = params[param].dtype == mtl::Dtype::kBFloat16  ? 0x1p-8
                            : params[param].dtype == mtl::Dtype::kFloat16 ? 0x1p-11
                                                                          : 0x1p-24;
    for (int64_t i = 0; i < lists.numel[param]; ++i) {
      const double quotient = size == 0 ? 0 : (rows.at(0, param, i) - rows.at(1, param, i)) / (2 * size);
      expected[param].push_back(quotient + (accumulate ? rows.at(2, param, i) : 0));
      bound[param].push_back(2 * half_ulp * std::abs(expected[param].back()) + 0x1p-24);
      if (size == 0 && !in_place && rows.present(0, param)) rows.set(0, param, i, NAN);
    }
  }
  expect_success(mtl::launch_finite_difference(lists, eps.data(), accumulate, nullptr));
  for (int64_t param = 0; param < lists.num_params; ++param) {
    for (int64_t i = 0; i < lists.numel[param]; ++i) {
      expect_close("out", i, rows.at(2, param, i), expected[param][i], bound[param][i]);
    }
  }
}

}  // namespace

void run_cases() {
  const std::vector<Parameter> params = odd_parameters(kThreadSanitizer ? 64 : 4096);
  std::vector<Parameter> all_present = params;
  for (Parameter& param : all_present) param.absent_row = -1;
  check(params, 0.01, false, false);
  check(params, 0.01, true, false);
  check(params, 0, true, false);
  check(all_present, -3, false, true);
}
