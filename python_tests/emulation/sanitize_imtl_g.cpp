#include "cuda/imtl_g.h"
#include "sanitize.h"

using namespace sanitize;

namespace {

// The combination has equal projections on all gradients' directions.
void check_projections(const double* gram, const double* weights, int num_tasks) {
  double sum = 0, first = 0;
  for (int i = 0; i < num_tasks; ++i) {
    double projection = 0;
    for (int j = 0; j < num_tasks; ++j) projection += gram[i * num_tasks + j] * weights[j];
    projection /= std::sqrt(gram[i * (num_tasks + 1)]);
    if (i == 0) first = projection;
    expect_close("projection", i, projection, first, 1e-9 * std::abs(first));
    sum += weights[i];
  }
  expect_close("sum of the weights", 0, sum, 1, 1e-9);
}

void check(int num_tasks) {
  constexpr int kProblems = 4;
  const int size = num_tasks * num_tasks;
  Guarded<double> gram(kProblems * size), weights(kProblems * num_tasks), certificate(kProblems);
  Guarded<int32_t> status(kProblems);
  for (int problem = 0; problem < kProblems; ++problem) fill_gram(&gram[problem * size], num_tasks, 2 * num_tasks + 5);
  gram[2 * size - 1] = NAN;                                  // in the second problem
  fill_gram(&gram[2 * size], num_tasks, num_tasks / 2 + 1);  // rank-deficient
  for (int i = 3 * size; i < 4 * size; ++i) gram[i] = 0;
  const mtl::KxkBatch batch{.num_problems = kProblems,
                            .num_tasks = num_tasks,
                            .gram = gram.data(),
                            .weights = weights.data(),
                            .certificate = certificate.data(),
                            .status = status.data()};
  expect_success(mtl::launch_imtl_g(batch, 0x1p-23, nullptr));
  check_projections(&gram[0], &weights[0], num_tasks);
  for (const int problem : {0, 2, 3}) expect_close("certificate", problem, certificate[problem], 0, 1e-13);
  for (int k = 0; k < num_tasks; ++k) {
    expect_close("weights", k, weights[num_tasks + k], 0, 0);
    expect_close("weights", k, weights[3 * num_tasks + k], 0, 0);
  }
  if (status[0] != 0 || status[1] != 2 || status[2] != 0 || status[3] != 0) {
    fail("status is %d %d %d %d, expected 0 2 0 0\n", status[0], status[1], status[2], status[3]);
  }
}

}  // namespace

void run_cases() {
  for (const int num_tasks : {1, 2, 3, 8}) check(num_tasks);
  if (kThreadSanitizer) return;
  check(33);
  check(mtl::kMaxSolverTasks);
}
