#include "cuda/cagrad.h"
#include "sanitize.h"

using namespace sanitize;

namespace {

constexpr double kRadius = 0.4;

// w on the simplex is optimal if no task's slope q_k + sqrt(phi) (G w)_k / |g_w| lies below their mean under w.
void check_optimal(const double* gram, const double* weights, int num_tasks) {
  std::vector<double> mean(num_tasks), products(num_tasks);
  double total = 0, square = 0, mean_square = 0, trace = 0;
  for (int i = 0; i < num_tasks; ++i) {
    const double v = weights[i] - 1.0 / num_tasks;
    if (v < 0) fail("weights[%d] is %g\n", i, weights[i]);
    total += v;
    trace += gram[i * num_tasks + i];
    for (int j = 0; j < num_tasks; ++j) {
      mean[i] += gram[i * num_tasks + j] / num_tasks;
      products[i] += gram[i * num_tasks + j] * (weights[j] - 1.0 / num_tasks);
    }
    mean_square += mean[i] / num_tasks;
  }
  for (int i = 0; i < num_tasks; ++i) square += (weights[i] - 1.0 / num_tasks) * products[i];
  expect_close("length of the correction", 0, std::sqrt(square / mean_square), kRadius, 1e-6);
  double value = 0;
  for (int i = 0; i < num_tasks; ++i) value += (weights[i] - 1.0 / num_tasks) / total * (mean[i] + products[i]);
  for (int i = 0; i < num_tasks; ++i) {
    const double slope = mean[i] + products[i];
    expect_close("slope", i, std::fmin(slope, value), value, 1e-8 * std::sqrt(mean_square * trace));
  }
}

void check(int num_tasks, int columns) {
  constexpr int kProblems = 3;
  const int size = num_tasks * num_tasks;
  Guarded<double> gram(kProblems * size), weights(kProblems * num_tasks), certificate(kProblems);
  Guarded<int32_t> status(kProblems);
  for (int problem = 0; problem < kProblems; ++problem) fill_gram(&gram[problem * size], num_tasks, columns);
  gram[2 * size - 1] = NAN;  // in the second problem
  const mtl::KxkBatch batch{kProblems, num_tasks, gram.data(), weights.data(), certificate.data(), status.data()};
  expect_success(mtl::launch_cagrad(batch, kRadius, 0x1p-52, nullptr));
  for (const int problem : {0, 2}) {
    check_optimal(&gram[problem * size], &weights[problem * num_tasks], num_tasks);
    expect_close("certificate", problem, certificate[problem], 0, 1e-8);
  }
  for (int k = 0; k < num_tasks; ++k) expect_close("weights", k, weights[num_tasks + k], 0, 0);
  if (status[0] != 0 || status[1] != 2 || status[2] != 0) {
    fail("status is %d %d %d, expected 0 2 0\n", status[0], status[1], status[2]);
  }
}

}  // namespace

void run_cases() {
  for (const int num_tasks : {1, 2, 5}) check(num_tasks, num_tasks + 2);
  check(7, 4);  // rank-deficient
  check(33, 40);
  if (!kThreadSanitizer) check(mtl::kMaxSolverTasks, 70);
}
