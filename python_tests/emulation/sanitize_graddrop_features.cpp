#include "common/philox.h"
#include "cuda/graddrop_features.h"
#include "sanitize.h"

using namespace sanitize;

namespace {

// The sum over the batch of task k's gradients with the features' signs, slice by slice.
template <class W>
W marginal(const Rows& rows, int k, int num_tasks, int64_t param, int64_t position, int64_t positions, int64_t batch) {
  W total = 0;
  for (int64_t first = 0; first < mtl::kBatchSlices; ++first) {
    W slice = 0;
    for (int64_t b = first; b < batch; b += mtl::kBatchSlices) {
      const int64_t i = b * positions + position;
      slice += static_cast<W>(mtl::sign_of(rows.at(num_tasks, param, i)) * rows.at(k, param, i));
    }
    total += slice;
  }
  return total;
}

// What each task's gradients at one position are multiplied by.
template <class W>
std::vector<double> factors(const std::vector<W>& marginals, float uniform, const double* leak) {
  W sum = 0, magnitude = 0;
  for (const W value : marginals) {
    sum += value;
    magnitude += std::abs(value);
  }
  const W bound = (2 * static_cast<W>(uniform) - 1) * magnitude;
  std::vector<double> result;
  for (size_t k = 0; k < marginals.size(); ++k) {
    const bool passes = (marginals[k] > 0 && sum > bound) || (marginals[k] < 0 && sum < bound);
    result.push_back(passes ? 1 : leak == nullptr ? 0 : leak[k]);
  }
  return result;
}

// `samples`: parameter p has samples + p of the `numel` positions that `positions` says.
void check(int num_tasks, const std::vector<Parameter>& positions, int64_t samples, bool seeded, bool leaking) {
  std::vector<Parameter> whole = positions;
  std::vector<int64_t> batch;
  for (Parameter& param : whole) {
    batch.push_back(samples + static_cast<int64_t>(batch.size()));
    param.numel *= batch.back();
  }
  Rows rows(num_tasks + 2, whole);  // the gradients, the features, the outputs
  Guarded<double> leak(num_tasks);
  for (int k = 0; k < num_tasks; ++k) leak[k] = std::abs(random_value());
  Guarded<int64_t> seed(2);
  seed[0] = -7, seed[1] = 5;
  const mtl::DropRule rule{seeded ? seed.data() : nullptr, leaking ? leak.data() : nullptr, false, 1, false};
  const mtl::PhiloxStream stream(seed.data());
  mtl::TensorLists lists = rows.lists();
  if (!seeded) ++lists.num_rows;
  std::vector<std::unique_ptr<Guarded<float>>> uniform;
  for (int64_t param = 0; param < lists.num_params; ++param) {
    lists.numel[param] = positions[param].numel;
    uniform.push_back(std::make_unique<Guarded<float>>(positions[param].numel, param % 2));
    if (!seeded) lists.data.push_back(uniform.back()->data());
    for (int64_t i = 0; i < positions[param].numel; ++i) {
      (*uniform.back())[i] =
          seeded ? mtl::uniform_from(stream.words(i / 4, param).word[i % 4]) : (random_value() + 1) / 2;
    }
  }
  expect_success(mtl::launch_graddrop_features(lists, batch, num_tasks, rule, nullptr));
  for (int64_t param = 0; param < lists.num_params; ++param) {
    const int64_t numel = positions[param].numel;
    const bool half = whole[param].dtype == mtl::Dtype::kBFloat16 || whole[param].dtype == mtl::Dtype::kFloat16;
    const auto column_factors = [&](auto zero, int64_t i) {
      std::vector<decltype(zero)> marginals;
      for (int k = 0; k < num_tasks; ++k) {
        marginals.push_back(marginal<decltype(zero)>(rows, k, num_tasks, param, i, numel, batch[param]));
      }
      return factors(marginals, (*uniform[param])[i], rule.leak);
    };
    for (int64_t i = 0; i < numel; ++i) {
      const std::vector<double> factor =
          whole[param].dtype == mtl::Dtype::kFloat64 ? column_factors(double{}, i) : column_factors(float{}, i);
      for (int64_t b = 0; b < batch[param]; ++b) {
        double expected = 0;
        for (int k = 0; k < num_tasks; ++k) expected += factor[k] * rows.at(k, param, b * numel + i);
        const double bound = (half ? 0x1p-8 * std::abs(expected) : 0) + 0x1p-24 * (num_tasks + 2) * num_tasks;
        expect_close("out", b * numel + i, rows.at(num_tasks + 1, param, b * numel + i), expected, bound);
      }
    }
  }
}

}  // namespace

void run_cases() {
  // The first row of some parameters is absent; features and outputs never are.
  const std::vector<Parameter> params = odd_parameters(128);
  check(3, params, kThreadSanitizer ? 2 : 7, true, true);
  if (kThreadSanitizer) return;
  check(1, {{mtl::Dtype::kFloat32, 260}, {mtl::Dtype::kFloat64, 31, 1}, {mtl::Dtype::kBFloat16, 5}}, 1, true, false);
  check(5, params, 9, false, false);
  check(11, params, 2, true, false);
}
