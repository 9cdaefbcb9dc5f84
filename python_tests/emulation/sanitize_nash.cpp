#include "cuda/nash.h"
#include "sanitize.h"

using namespace sanitize;

namespace {

// a solves G a = 1 / a if a_k (G a)_k is 1 for every task.
void check(int num_tasks, int columns) {
  constexpr int kProblems = 3;
  const int size = num_tasks * num_tasks;
  Guarded<double> gram(kProblems * size), weights(kProblems * num_tasks), certificate(kProblems);
  Guarded<int32_t> status(kProblems);
  for (int problem = 0; problem < kProblems; ++problem) fill_gram(&gram[problem * size], num_tasks, columns);
  gram[2 * size - 1] = NAN;  // in the second problem
  const mtl::KxkBatch batch{kProblems, num_tasks, gram.data(), weights.data(), certificate.data(), status.data()};
  expect_success(mtl::launch_nash(batch, nullptr));
  for (const int problem : {0, 2}) {
    if (status[problem] != 0) fail("status[%d] is %d, expected 0\n", problem, status[problem]);
    const double* a = &weights[problem * num_tasks];
    for (int i = 0; i < num_tasks; ++i) {
      double product = 0;
      for (int j = 0; j < num_tasks; ++j) product += gram[problem * size + i * num_tasks + j] * a[j];
      expect_close("a (G a)", i, a[i] * product, 1, 1e-7);
    }
  }
  if (status[1] != 2) fail("status[1] is %d, expected 2\n", status[1]);
  for (int k = 0; k < num_tasks; ++k) expect_close("weights", k, weights[num_tasks + k], 0, 0);
}

// Two opposite gradients: no solution, weights of the minimum norm.
void check_stationary() {
  Guarded<double> gram(4), weights(2), certificate(1);
  Guarded<int32_t> status(1);
  const double values[] = {1, -3, -3, 9};
  for (int i = 0; i < 4; ++i) gram[i] = values[i];
  const mtl::KxkBatch batch{1, 2, gram.data(), weights.data(), certificate.data(), status.data()};
  expect_success(mtl::launch_nash(batch, nullptr));
  if (status[0] != 1) fail("status is %d, expected 1\n", status[0]);
  expect_close("weights", 0, weights[0], 0.75, 1e-12);
  expect_close("certificate", 0, certificate[0], 0, 1e-15);
}

}  // namespace

void run_cases() {
  for (const int num_tasks : {1, 2, 5}) check(num_tasks, num_tasks + 2);
  check(33, 50);
  check_stationary();
  if (!kThreadSanitizer) check(mtl::kMaxSolverTasks, 90);
}
