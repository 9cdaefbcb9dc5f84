#include "cuda/saliency_entropy.h"
#include "sanitize.h"

using namespace sanitize;

namespace {

void check(int num_tasks, std::vector<Parameter> params) {
  Rows rows(num_tasks, params);
  const mtl::TensorLists& grads = rows.lists();
  std::vector<std::vector<double>> expected(grads.num_params);
  double mean = 0;
  int64_t positions = 0, zeros = 0;
  for (int64_t param = 0; param < grads.num_params; ++param) {
    for (int64_t i = 0; i < grads.numel[param]; ++i, ++positions) {
      double sum = 0, entropy = 0;
      for (int k = 0; k < num_tasks; ++k) {
        if (i % 5 == 0 && rows.present(k, param)) rows.set(k, param, i, 0);
        sum += std::abs(rows.at(k, param, i));
      }
      for (int k = 0; k < num_tasks; ++k) {
        const double share = std::abs(rows.at(k, param, i)) / sum;
        if (share > 0) entropy -= share * std::log(share);
      }
      expected[param].push_back(entropy);
      mean += entropy;
      zeros += sum == 0;
    }
  }
  mean /= static_cast<double>(positions);
  const double bound = (num_tasks + 4) * 0x1p-23 * (1 + std::log(num_tasks));

  Guarded<double> scratch(mtl::saliency_entropy_scratch(grads));
  Guarded<double> entropy(1);
  Guarded<int64_t> zero_columns(1);
  expect_success(
      mtl::launch_saliency_entropy(grads, positions, scratch.data(), entropy.data(), zero_columns.data(), nullptr));
  expect_close("entropy", 0, entropy[0], mean, bound);
  expect_close("zero_columns", 0, static_cast<double>(zero_columns[0]), static_cast<double>(zeros), 0);

  mtl::TensorLists lists = grads;
  ++lists.num_rows;
  for (Parameter& param : params) {
    param.absent_row = -1;
    if (param.dtype != mtl::Dtype::kFloat64) param.dtype = mtl::Dtype::kFloat32;
  }
  Rows map(1, params);
  lists.data.insert(lists.data.end(), map.lists().data.begin(), map.lists().data.end());
  expect_success(mtl::launch_saliency_entropy_map(lists, nullptr));
  for (int64_t param = 0; param < grads.num_params; ++param) {
    for (int64_t i = 0; i < grads.numel[param]; ++i) {
      expect_close("map", i, map.at(0, param, i), expected[param][i], bound);
    }
  }
}

}  // namespace

void run_cases() {
  const std::vector<Parameter> params = odd_parameters(kThreadSanitizer ? 64 : 2048);
  check(3, params);
  if (kThreadSanitizer) return;
  check(1, params);
  check(7, params);
}
