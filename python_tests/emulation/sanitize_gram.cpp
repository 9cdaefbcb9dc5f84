#include <algorithm>

#include "cuda/gram.h"
#include "sanitize.h"

using namespace sanitize;

namespace {

// Consecutive parameters share a group, `per_group` at a time; two of the groups come twice.
mtl::Groups grouped(int64_t num_params, int per_group) {
  mtl::Groups groups{{}, 1};
  for (int64_t param = 0; param < num_params; ++param) {
    groups.of_param.push_back(param / per_group % 3);
    groups.count = std::max(groups.count, groups.of_param.back() + 1);
  }
  return groups;
}

void check(int num_tasks, const std::vector<Parameter>& params, int per_group) {
  const Rows grads(num_tasks, params);
  const mtl::TensorLists& lists = grads.lists();
  const mtl::Groups groups = grouped(lists.num_params, per_group);
  const int64_t entries = num_tasks * num_tasks;
  Guarded<double> scratch(mtl::gram_scratch(lists, groups)), gram(groups.count * entries);
  expect_success(mtl::launch_gram(lists, groups, scratch.data(), gram.data(), nullptr));
  for (int64_t entry = 0; entry < groups.count * entries; ++entry) {
    const int64_t group = entry / entries;
    const int i = entry % entries / num_tasks, j = entry % num_tasks;
    double sum = 0, magnitude = 0;
    for (int64_t param = 0; param < lists.num_params; ++param) {
      if (groups.of_param[param] != group) continue;
      for (int64_t c = 0; c < lists.numel[param]; ++c) {
        const double product = grads.at(i, param, c) * grads.at(j, param, c);
        sum += product;
        magnitude += std::abs(product);
      }
    }
    expect_close("gram", entry, gram[entry], sum, 128 * 0x1p-24 * magnitude);
    if (gram[entry] != gram[group * entries + j * num_tasks + i]) fail("gram is not symmetric\n");
  }
}

}  // namespace

void run_cases() {
  const std::vector<Parameter> params = odd_parameters(520);
  const int whole = static_cast<int>(params.size());
  for (const int num_tasks : {1, 2, 3, 5}) check(num_tasks, params, whole);
  check(3, params, 2);
  check(9, odd_parameters(kThreadSanitizer ? 40 : 300), kThreadSanitizer ? 1 : whole);
  if (kThreadSanitizer) return;
  check(2, params, 1);
  check(9, odd_parameters(300), 1);
  check(65, {{mtl::Dtype::kFloat32, 37}, {mtl::Dtype::kFloat64, 5, 1}}, 2);
  check(65, {{mtl::Dtype::kFloat32, 37}, {mtl::Dtype::kFloat64, 5, 1}}, 1);
}
