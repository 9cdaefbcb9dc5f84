#include "cuda/combine.h"
#include "sanitize.h"

using namespace sanitize;

namespace {

// `in_place`: the outputs are the memory of the first task's gradients. `per_param`: a row of weights per parameter.
void check(int num_tasks, const std::vector<Parameter>& params, bool accumulate, bool in_place, bool per_param) {
  Rows rows(num_tasks + 1, params);  // the gradients, then the outputs
  const int64_t stride = per_param ? num_tasks : 0;
  Guarded<double> weights(per_param ? num_tasks * static_cast<int64_t>(params.size()) : num_tasks);
  for (int64_t i = 0; i < weights.size(); ++i) weights[i] = random_value();
  const int unread = num_tasks / 2;  // a gradient of weight 0 must not be read: it holds NaN
  for (int64_t i = unread; num_tasks > 1 && i < weights.size(); i += num_tasks) weights[i] = 0;
  if (in_place) rows.alias(num_tasks, 0);
  const mtl::TensorLists& lists = rows.lists();
  std::vector<std::vector<double>> expected(lists.num_params), bound(lists.num_params);
  for (int64_t param = 0; param < lists.num_params; ++param) {
    const double half_ulp = params[param].dtype == mtl::Dtype::kBFloat16  ? 0x1p-8
                            : params[param].dtype == mtl::Dtype::kFloat16 ? 0x1p-11
                                                                          : 0x1p-24;
    for (int64_t i = 0; i < lists.numel[param]; ++i) {
      double sum = accumulate ? rows.at(num_tasks, param, i) : 0, magnitude = std::abs(sum);
      for (int k = 0; k < num_tasks; ++k) {
        const double term = weights[param * stride + k] * rows.at(k, param, i);
        sum += term;
        magnitude += std::abs(term);
      }
      expected[param].push_back(sum);
      bound[param].push_back(half_ulp * std::abs(sum) + (num_tasks + 2) * 0x1p-24 * magnitude + 0x1p-24);
      if (num_tasks > 1 && rows.present(unread, param)) rows.set(unread, param, i, NAN);
    }
  }
  expect_success(mtl::launch_combine(lists, {weights.data(), stride}, accumulate, nullptr));
  for (int64_t param = 0; param < lists.num_params; ++param) {
    for (int64_t i = 0; i < lists.numel[param]; ++i) {
      expect_close("out", i, rows.at(num_tasks, param, i), expected[param][i], bound[param][i]);
    }
  }
}

}  // namespace

void run_cases() {
  const std::vector<Parameter> params = odd_parameters(4096);
  std::vector<Parameter> all_present = params;
  for (Parameter& param : all_present) param.absent_row = -1;
  check(1, all_present, false, false, false);
  for (const int num_tasks : {3, 7}) {
    check(num_tasks, params, false, false, false);
    check(num_tasks, params, true, false, true);
    check(num_tasks, all_present, false, true, false);
  }
}
