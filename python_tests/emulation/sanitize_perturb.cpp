#include "cuda/perturb.h"
#include "sanitize.h"

using namespace sanitize;

namespace {

double half_ulp(mtl::Dtype dtype) {
  return dtype == mtl::Dtype::kBFloat16 ? 0x1p-8 : dtype == mtl::Dtype::kFloat16 ? 0x1p-11 : 0x1p-24;
}

// `in_place`: the lower side is the memory of the direction.
void check(const std::vector<Parameter>& params, bool relative, bool in_place) {
  Rows rows(4, params);  // parameters, direction, both sides
  if (in_place) rows.alias(3, 1);
  const mtl::TensorLists& lists = rows.lists();
  double square[2] = {};
  std::vector<std::vector<double>> direction(lists.num_params);
  for (int64_t param = 0; param < lists.num_params; ++param) {
    for (int64_t i = 0; i < lists.numel[param]; ++i) {
      for (int row = 0; row < 2; ++row) square[row] += rows.at(row, param, i) * rows.at(row, param, i);
      direction[param].push_back(rows.at(1, param, i));
    }
  }
  const double radius = 3;
  const double expected = radius * (relative ? std::sqrt(square[0]) : 1) / std::sqrt(square[1]);
  Guarded<double> scratch(mtl::perturb_scratch(lists));
  Guarded<double> eps(1);
  expect_success(mtl::launch_perturb(lists, radius, relative, scratch.data(), eps.data(), nullptr));
  expect_close("eps", 0, eps[0], expected, 1e-12 * expected);
  for (int64_t param = 0; param < lists.num_params; ++param) {
    for (int64_t i = 0; i < lists.numel[param]; ++i) {
      const double from = rows.at(0, param, i), step = expected * direction[param][i];
      const double bound = 2 * half_ulp(params[param].dtype) * (std::abs(from) + std::abs(step)) + 0x1p-24;
      expect_close("plus", i, rows.at(2, param, i), from + step, bound);
      expect_close("minus", i, rows.at(3, param, i), from - step, bound);
    }
  }
}

}  // namespace

void run_cases() {
  std::vector<Parameter> params = odd_parameters(kThreadSanitizer ? 64 : 4096);
  for (Parameter& param : params) param.absent_row = param.absent_row < 0 ? -1 : 1;
  std::vector<Parameter> all_present = params;
  for (Parameter& param : all_present) param.absent_row = -1;
  check(params, true, false);
  check(params, false, false);
  check(all_present, true, true);
}
