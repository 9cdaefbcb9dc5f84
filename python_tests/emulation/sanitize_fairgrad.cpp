#include "cuda/fairgrad.h"
#include "sanitize.h"

using namespace sanitize;

namespace {

// w solves G w = w^(-1/alpha) if (G w)_k w_k^(1/alpha) is 1 for every task.
void check(int num_tasks, int columns, double alpha) {
  constexpr int kProblems = 3;
  const int size = num_tasks * num_tasks;
  Guarded<double> gram(kProblems * size), weights(kProblems * num_tasks), certificate(kProblems);
  Guarded<int32_t> status(kProblems);
  for (int problem = 0; problem < kProblems; ++problem) fill_gram(&gram[problem * size], num_tasks, columns);
  gram[2 * size - 1] = NAN;  // in the second problem
  const mtl::KxkBatch batch{kProblems, num_tasks, gram.data(), weights.data(), certificate.data(), status.data()};
  expect_success(mtl::launch_fairgrad(batch, alpha, nullptr));
  for (const int problem : {0, 2}) {
    if (status[problem] != 0) fail("status[%d] is %d, expected 0\n", problem, status[problem]);
    const double* w = &weights[problem * num_tasks];
    for (int i = 0; i < num_tasks; ++i) {
      double product = 0;
      for (int j = 0; j < num_tasks; ++j) product += gram[problem * size + i * num_tasks + j] * w[j];
      expect_close("residual", i, std::pow(w[i], 1 / alpha) * product, 1, 1e-7);
    }
  }
  if (status[1] != 2) fail("status[1] is %d, expected 2\n", status[1]);
  for (int k = 0; k < num_tasks; ++k) expect_close("weights", k, weights[num_tasks + k], 0, 0);
}

}  // namespace

void run_cases() {
  for (const int num_tasks : {1, 2, 5}) {
    for (const double alpha : {0.5, 2.0}) check(num_tasks, num_tasks + 2, alpha);
  }
  check(33, 50, 2);
  if (!kThreadSanitizer) check(mtl::kMaxSolverTasks, 90, 2);
}
