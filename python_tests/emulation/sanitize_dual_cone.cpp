#include "cuda/dual_cone.h"
#include "sanitize.h"

using namespace sanitize;

namespace {

// v on or above the bounds is optimal if no product (G v)_k is negative, and those above their bounds are 0.
void check_optimal(const double* gram, const double* lower, const double* weights, int num_tasks) {
  for (int i = 0; i < num_tasks; ++i) {
    double product = 0, size = 0;
    for (int j = 0; j < num_tasks; ++j) {
      product += gram[i * num_tasks + j] * weights[j];
      size += std::sqrt(gram[i * num_tasks + i] * gram[j * num_tasks + j]) *
              std::fmax(std::abs(weights[j]), std::abs(lower[j]));
    }
    if (weights[i] < lower[i]) fail("weights[%d] is %g, below %g\n", i, weights[i], lower[i]);
    expect_close("G v", i, weights[i] > lower[i] ? product : std::fmin(product, 0.0), 0, 1e-12 * size);
  }
}

void check(int num_tasks, int columns) {
  constexpr int kMatrices = 2, kBounds = 3, kProblems = kMatrices * kBounds;
  const int size = num_tasks * num_tasks;
  Guarded<double> gram(kMatrices * size), lower(kProblems * num_tasks), weights(kProblems * num_tasks);
  Guarded<double> certificate(kProblems);
  Guarded<int32_t> status(kProblems);
  for (int matrix = 0; matrix < kMatrices; ++matrix) fill_gram(&gram[matrix * size], num_tasks, columns);
  for (int64_t i = 0; i < lower.size(); ++i) lower[i] = random_value();
  lower[2 * num_tasks - 1] = NAN;  // in the second problem
  const mtl::KxkBatch batch{kProblems,          num_tasks,     gram.data(), weights.data(),
                            certificate.data(), status.data(), kBounds,     lower.data()};
  expect_success(mtl::launch_dual_cone(batch, nullptr));
  for (int problem = 0; problem < kProblems; ++problem) {
    const bool solved = problem != 1;
    if (status[problem] != (solved ? 0 : 2)) fail("status[%d] is %d\n", problem, status[problem]);
    double* row = &weights[problem * num_tasks];
    if (!solved) {
      for (int k = 0; k < num_tasks; ++k) expect_close("weights", k, row[k], 0, 0);
      continue;
    }
    check_optimal(&gram[problem / kBounds * size], &lower[problem * num_tasks], row, num_tasks);
    expect_close("certificate", problem, certificate[problem], 0, 1e-8);
  }
}

}  // namespace

void run_cases() {
  for (const int num_tasks : {1, 2, 5}) check(num_tasks, num_tasks + 2);
  check(7, 4);  // rank-deficient
  check(33, 40);
  if (!kThreadSanitizer) check(mtl::kMaxSolverTasks, 70);
}
