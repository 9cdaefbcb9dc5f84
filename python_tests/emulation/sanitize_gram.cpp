#include "cuda/gram.h"
#include "sanitize.h"

using namespace sanitize;

namespace {

void check(int num_tasks, const std::vector<Parameter>& params) {
  const Rows grads(num_tasks, params);
  Guarded<double> scratch(mtl::gram_scratch(grads.lists())), gram(num_tasks * num_tasks);
  expect_success(mtl::launch_gram(grads.lists(), scratch.data(), gram.data(), nullptr));
  for (int i = 0; i < num_tasks; ++i) {
    for (int j = 0; j < num_tasks; ++j) {
      double sum = 0, magnitude = 0;
      for (int64_t param = 0; param < grads.lists().num_params; ++param) {
        for (int64_t c = 0; c < grads.lists().numel[param]; ++c) {
          const double product = grads.at(i, param, c) * grads.at(j, param, c);
          sum += product;
          magnitude += std::abs(product);
        }
      }
      expect_close("gram", i * num_tasks + j, gram[i * num_tasks + j], sum, 128 * 0x1p-24 * magnitude);
      if (gram[i * num_tasks + j] != gram[j * num_tasks + i]) fail("gram is not symmetric\n");
    }
  }
}

}  // namespace

void run_cases() {
  for (const int num_tasks : {1, 2, 3, 5}) check(num_tasks, odd_parameters(520));
  check(9, odd_parameters(kThreadSanitizer ? 40 : 300));
  if (kThreadSanitizer) return;
  check(65, {{mtl::Dtype::kFloat32, 37}, {mtl::Dtype::kFloat64, 5, 1}});
}
