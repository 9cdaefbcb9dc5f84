#include "common/philox.h"
#include "cuda/graddrop.h"
#include "sanitize.h"

using namespace sanitize;

namespace {

// A column's result by plain loops, in the type of its arithmetic.
template <class W>
double dropped(const Rows& rows, int num_tasks, int64_t param, int64_t i, float uniform, const mtl::DropRule& rule) {
  W sum = 0, magnitude = 0;
  for (int k = 0; k < num_tasks; ++k) {
    const W value = static_cast<W>(rows.at(k, param, i));
    sum += value;
    magnitude += std::abs(value);
  }
  const W bound = (2 * static_cast<W>(uniform) - 1) * magnitude;
  double total = rule.accumulate ? rows.at(num_tasks, param, i) : 0;
  for (int k = 0; k < num_tasks; ++k) {
    const double value = rows.at(k, param, i);
    const bool passes = (value > 0 && sum > bound) || (value < 0 && sum < bound);
    total += (passes ? 1 : rule.leak == nullptr ? 0 : rule.leak[k]) * value;
  }
  return total;
}

// `in_place`: the outputs are the memory of the first task's gradients.
void check(int num_tasks, const std::vector<Parameter>& params, bool seeded, bool leaking, bool accumulate,
           bool in_place) {
  Rows rows(num_tasks + 1, params);  // the gradients, then the outputs
  if (in_place) rows.alias(num_tasks, 0);
  Guarded<double> leak(num_tasks);
  for (int k = 0; k < num_tasks; ++k) leak[k] = std::abs(random_value());
  Guarded<int64_t> seed(2);
  seed[0] = -7, seed[1] = 5;
  const mtl::DropRule rule{seeded ? seed.data() : nullptr, leaking ? leak.data() : nullptr, false, 1, accumulate};
  const mtl::PhiloxStream stream(seed.data());
  mtl::TensorLists lists = rows.lists();
  std::vector<std::unique_ptr<Guarded<float>>> uniform;
  std::vector<std::vector<double>> expected(lists.num_params);
  if (!seeded) ++lists.num_rows;
  for (int64_t param = 0; param < lists.num_params; ++param) {
    uniform.push_back(std::make_unique<Guarded<float>>(lists.numel[param], param % 2));
    if (!seeded) lists.data.push_back(uniform.back()->data());
    for (int64_t i = 0; i < lists.numel[param]; ++i) {
      float& u = (*uniform.back())[i];
      u = seeded ? mtl::uniform_from(stream.words(i / 4, param).word[i % 4]) : (random_value() + 1) / 2;
      expected[param].push_back(params[param].dtype == mtl::Dtype::kFloat64
                                    ? dropped<double>(rows, num_tasks, param, i, u, rule)
                                    : dropped<float>(rows, num_tasks, param, i, u, rule));
    }
  }
  expect_success(mtl::launch_graddrop(lists, num_tasks, rule, nullptr));
  for (int64_t param = 0; param < lists.num_params; ++param) {
    const bool half = params[param].dtype == mtl::Dtype::kBFloat16 || params[param].dtype == mtl::Dtype::kFloat16;
    for (int64_t i = 0; i < lists.numel[param]; ++i) {
      const double bound = (half ? 0x1p-8 * std::abs(expected[param][i]) : 0) + 0x1p-24 * (num_tasks + 2) * num_tasks;
      expect_close("out", i, rows.at(num_tasks, param, i), expected[param][i], bound);
    }
  }
}

}  // namespace

void run_cases() {
  const std::vector<Parameter> params = odd_parameters(1024);
  std::vector<Parameter> all_present = params;
  for (Parameter& param : all_present) param.absent_row = -1;
  check(3, params, true, true, true, false);
  if (kThreadSanitizer) return;
  check(1, all_present, true, false, false, false);
  check(3, params, false, false, false, false);
  check(11, params, true, false, false, false);
  check(11, all_present, false, true, false, true);
}
