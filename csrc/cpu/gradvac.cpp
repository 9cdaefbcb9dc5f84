#include <torch/csrc/stable/library.h>

#include "gradvac_arguments.h"

namespace mtl {
namespace {

// workspace [3, K].
void correct_group(const GradvacBatch& group, double* workspace) {
  const int num_tasks = group.num_tasks;
  if (!all_finite(OneLane{}, group.gram, num_tasks * num_tasks)) return gradvac_refuse(OneLane{}, group);
  std::fill_n(group.weights, num_tasks, 0.0);
  double* inverse = workspace;
  double* coefficients = workspace + num_tasks;
  gradvac_inverse_norms(OneLane{}, group, inverse);
  for (int task = 0; task < num_tasks; ++task) {
    gradvac_row(OneLane{}, group, inverse, task, coefficients, coefficients + num_tasks);
    for (int k = 0; k < num_tasks; ++k) group.weights[k] += coefficients[k];
  }
}

std::tuple<Tensor, Tensor> gradvac_cpu(Tensor gram, Tensor order, Tensor target, double beta) {
  const GradvacArguments arguments("mtl_ext::gradvac", gram, order, target, beta);
  const GradvacBatch batch = arguments.batch();
  torch::stable::parallel_for(0, batch.num_groups, 4, [&](int64_t begin, int64_t end) {
    std::vector<double> workspace(3 * batch.num_tasks);
    for (int64_t i = begin; i < end; ++i) correct_group(batch.group(i), workspace.data());
  });
  return {arguments.weights, arguments.new_target};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mtl_ext, CPU, m) { m.impl("gradvac", TORCH_BOX(&gradvac_cpu)); }

}  // namespace mtl
