#include "cuda/pcgrad.h"
#include "sanitize.h"

using namespace sanitize;

namespace {

void check(int num_tasks) {
  Guarded<double> gram(num_tasks * num_tasks), weights(num_tasks);
  Guarded<int64_t> order(num_tasks * (num_tasks - 1));
  fill_gram(gram.data(), num_tasks, num_tasks + 2);
  for (int i = 0; i < num_tasks; ++i) {
    for (int step = 1; step < num_tasks; ++step) order[i * (num_tasks - 1) + step - 1] = (i + step) % num_tasks;
  }
  std::vector<double> expected(num_tasks);
  for (int i = 0; i < num_tasks; ++i) {
    std::vector<double> coefficients(num_tasks);
    coefficients[i] = 1;
    for (int step = 0; step < num_tasks - 1; ++step) {
      const int64_t j = order[i * (num_tasks - 1) + step];
      double product = 0;
      for (int k = 0; k < num_tasks; ++k) product += gram[j * num_tasks + k] * coefficients[k];
      if (product < 0) coefficients[j] -= product / gram[j * num_tasks + j];
    }
    for (int k = 0; k < num_tasks; ++k) expected[k] += coefficients[k];
  }
  expect_success(mtl::launch_pcgrad(num_tasks, gram.data(), order.data(), weights.data(), nullptr));
  for (int k = 0; k < num_tasks; ++k) expect_close("weights", k, weights[k], expected[k], 1e-12 * num_tasks);
}

}  // namespace

void run_cases() {
  for (const int num_tasks : {1, 2, 3, 7}) check(num_tasks);
  if (kThreadSanitizer) return;
  check(33);
  check(mtl::kMaxPcgradTasks);
}
