#include "cuda/gradvac.h"
#include "sanitize.h"

using namespace sanitize;

namespace {

constexpr double kBeta = 0.25;

double product(const double* gram, const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    for (size_t j = 0; j < b.size(); ++j) sum += a[i] * gram[i * a.size() + j] * b[j];
  }
  return sum;
}

// One task's corrections by plain loops; moves `target` [K].
std::vector<double> corrected(const double* gram, const int64_t* order, int num_tasks, int task,
                              std::vector<double>& target) {
  std::vector<double> row(num_tasks);
  row[task] = 1;
  for (int step = 0; step < num_tasks - 1; ++step) {
    const int64_t j = order[step];
    std::vector<double> other(num_tasks);
    other[j] = 1;
    const double norm = std::sqrt(product(gram, row, row)), other_norm = std::sqrt(product(gram, other, other));
    const double phi = product(gram, row, other) / (norm * other_norm), wanted = target[j];
    const double sine = std::sqrt(1 - phi * phi), wanted_sine = std::sqrt(1 - wanted * wanted);
    if (phi < wanted) row[j] += norm * (wanted * sine - phi * wanted_sine) / (other_norm * wanted_sine);
    target[j] = (1 - kBeta) * wanted + kBeta * phi;
  }
  return row;
}

void check(int num_tasks, bool shared_order) {
  constexpr int kGroups = 3;
  const int size = num_tasks * num_tasks, order_size = num_tasks * (num_tasks - 1);
  Guarded<double> gram(kGroups * size), target(kGroups * size), weights(kGroups * num_tasks),
      new_target(kGroups * size);
  Guarded<int64_t> order(shared_order ? order_size : kGroups * order_size);
  for (int64_t i = 0; i < target.size(); ++i) target[i] = 0.5 * random_value();
  for (int group = 0; group < kGroups; ++group) fill_gram(&gram[group * size], num_tasks, 2 * num_tasks + 2);
  gram[2 * size - 1] = NAN;  // in the second group
  for (int64_t i = 0; i < order.size(); ++i) {
    const int64_t task = i / (num_tasks - 1) % num_tasks, step = i % (num_tasks - 1);
    order[i] = (task + 1 + step) % num_tasks;
  }
  const mtl::GradvacBatch batch{
      kGroups,       num_tasks, gram.data(),    order.data(),     shared_order ? 0 : order_size,
      target.data(), kBeta,     weights.data(), new_target.data()};
  expect_success(mtl::launch_gradvac(batch, nullptr));
  for (const int group : {0, 2}) {
    std::vector<double> expected(num_tasks);
    for (int task = 0; task < num_tasks; ++task) {
      const double* before = &target[group * size + task * num_tasks];
      std::vector<double> moved(before, before + num_tasks);
      const int64_t* tasks = batch.order + group * batch.order_stride + task * (num_tasks - 1);
      const std::vector<double> row = corrected(&gram[group * size], tasks, num_tasks, task, moved);
      for (int k = 0; k < num_tasks; ++k) {
        expected[k] += row[k];
        expect_close("new_target", k, new_target[group * size + task * num_tasks + k], moved[k], 1e-11);
      }
    }
    for (int k = 0; k < num_tasks; ++k) {
      expect_close("weights", k, weights[group * num_tasks + k], expected[k], 1e-9 * num_tasks);
    }
  }
  for (int k = 0; k < num_tasks; ++k) {
    if (!std::isnan(weights[num_tasks + k])) fail("weights[1, %d] is %g, expected nan\n", k, weights[num_tasks + k]);
  }
  for (int i = size; i < 2 * size; ++i) expect_close("new_target", i, new_target[i], target[i], 0);
}

}  // namespace

void run_cases() {
  for (const int num_tasks : {1, 2, 3, 7}) check(num_tasks, num_tasks == 3);
  if (kThreadSanitizer) return;
  check(19, false);
  check(mtl::kMaxGradvacTasks, true);
}
