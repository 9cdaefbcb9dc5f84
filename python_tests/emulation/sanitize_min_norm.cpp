#include "cuda/min_norm.h"
#include "sanitize.h"

using namespace sanitize;

namespace {

// w on the simplex is the point of minimum norm if no task's product (G w)_k lies below w^T G w.
void check_optimal(const double* gram, const double* weights, int num_tasks) {
  std::vector<double> products(num_tasks);
  double sum = 0, square = 0, trace = 0;
  for (int i = 0; i < num_tasks; ++i) {
    for (int j = 0; j < num_tasks; ++j) products[i] += gram[i * num_tasks + j] * weights[j];
    if (weights[i] < 0) fail("weights[%d] is %g\n", i, weights[i]);
    sum += weights[i];
    square += weights[i] * products[i];
    trace += gram[i * num_tasks + i];
  }
  expect_close("sum of the weights", 0, sum, 1, 1e-12);
  for (int k = 0; k < num_tasks; ++k) expect_close("G w", k, std::fmin(products[k], square), square, 1e-12 * trace);
}

void check(int num_tasks, int columns) {
  constexpr int kProblems = 3;
  const int size = num_tasks * num_tasks;
  Guarded<double> gram(kProblems * size), weights(kProblems * num_tasks), certificate(kProblems);
  Guarded<int32_t> status(kProblems);
  for (int problem = 0; problem < kProblems; ++problem) fill_gram(&gram[problem * size], num_tasks, columns);
  gram[2 * size - 1] = NAN;  // in the second problem
  const mtl::KxkBatch batch{kProblems, num_tasks, gram.data(), weights.data(), certificate.data(), status.data()};
  expect_success(mtl::launch_min_norm(batch, nullptr));
  for (const int problem : {0, 2}) {
    check_optimal(&gram[problem * size], &weights[problem * num_tasks], num_tasks);
    expect_close("certificate", problem, certificate[problem], 0, 1e-6);
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
