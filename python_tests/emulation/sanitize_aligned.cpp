#include "cuda/aligned.h"
#include "sanitize.h"

using namespace sanitize;

namespace {

// The third problem is a multiple of the unit matrix, which is balanced as it is: w = p.
void check(int num_tasks, int columns, mtl::AlignedScale scale) {
  constexpr int kProblems = 3;
  const int size = num_tasks * num_tasks;
  Guarded<double> gram(kProblems * size), weights(kProblems * num_tasks), certificate(kProblems), rows(weights.size());
  Guarded<int32_t> status(kProblems);
  for (int problem = 0; problem < kProblems; ++problem) fill_gram(&gram[problem * size], num_tasks, columns);
  for (int i = 0; i < size; ++i) gram[2 * size + i] = i % (num_tasks + 1) == 0 ? 4 : 0;
  for (int64_t i = 0; i < rows.size(); ++i) rows[i] = 1 + static_cast<double>(i);
  gram[2 * size - 1] = NAN;  // in the second problem
  const mtl::KxkBatch batch{kProblems,          num_tasks,     gram.data(), weights.data(),
                            certificate.data(), status.data(), 1,           rows.data()};
  expect_success(mtl::launch_aligned(batch, mtl::Aligned{scale, 1e-12, true}, nullptr));
  for (const int problem : {0, 2}) {
    expect_close("status", problem, status[problem], 0, 0);
    expect_close("certificate", problem, certificate[problem], 0, 1e-12);
  }
  expect_close("status", 1, status[1], 2, 0);
  for (int k = 0; k < num_tasks; ++k) {
    expect_close("weights", k, weights[num_tasks + k], 0, 0);
    expect_close("weights", k, weights[2 * num_tasks + k], rows[2 * num_tasks + k], 1e-12 * rows.size());
  }
}

}  // namespace

void run_cases() {
  using enum mtl::AlignedScale;
  for (const auto scale : {kMin, kMedian, kRmse}) {
    for (const int num_tasks : {1, 2, 5}) check(num_tasks, num_tasks + 2, scale);
  }
  check(7, 4, kMedian);  // rank-deficient
  check(33, 50, kMin);
  if (!kThreadSanitizer) check(mtl::kMaxSolverTasks, 90, kRmse);
}
