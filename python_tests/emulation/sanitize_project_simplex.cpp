#include "cuda/project_simplex.h"
#include "sanitize.h"

using namespace sanitize;

namespace {

// w on the simplex is the projection if values - w is the same where w > 0 and nowhere larger.
void check_optimal(const double* values, const double* weights, int num_tasks) {
  double sum = 0, threshold = -INFINITY;
  for (int k = 0; k < num_tasks; ++k) {
    if (weights[k] < 0) fail("weights[%d] is %g\n", k, weights[k]);
    sum += weights[k];
    threshold = std::fmax(threshold, values[k] - weights[k]);
  }
  expect_close("sum of the weights", 0, sum, 1, 1e-14 * num_tasks);
  for (int k = 0; k < num_tasks; ++k) {
    if (weights[k] > 0) expect_close("threshold", k, values[k] - weights[k], threshold, 1e-14 * num_tasks);
  }
}

void check(int num_problems, int num_tasks) {
  Guarded<double> values(num_problems * num_tasks), weights(num_problems * num_tasks), certificate(num_problems);
  Guarded<int32_t> status(num_problems);
  for (int64_t i = 0; i < values.size(); ++i) values[i] = 2 * random_value();
  const int broken = num_problems / 2;
  values[broken * num_tasks] = NAN;
  const mtl::SimplexBatch batch{num_problems,   num_tasks,          values.data(),
                                weights.data(), certificate.data(), status.data()};
  expect_success(mtl::launch_project_simplex(batch, nullptr));
  for (int problem = 0; problem < num_problems; ++problem) {
    const bool finite = problem != broken;
    if (status[problem] != (finite ? 0 : 2)) fail("status[%d] is %d\n", problem, status[problem]);
    if (finite) {
      check_optimal(&values[problem * num_tasks], &weights[problem * num_tasks], num_tasks);
      expect_close("certificate", problem, certificate[problem], 0, 1e-14 * num_tasks);
    }
  }
  for (int k = 0; k < num_tasks; ++k) expect_close("weights", k, weights[broken * num_tasks + k], 0, 0);
}

}  // namespace

void run_cases() {
  for (const int num_tasks : {1, 2, 5, 33, 70}) check(7, num_tasks);
  check(1, 3);
  if (!kThreadSanitizer) check(33, 200);
}
