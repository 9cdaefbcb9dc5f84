#include <torch/csrc/stable/library.h>

#include "project_simplex_arguments.h"

namespace mtl {
namespace {

std::tuple<Tensor, Tensor, Tensor> project_simplex_cpu(Tensor values) {
  const SimplexArguments arguments("mtl_ext::project_simplex", values);
  const SimplexBatch batch = arguments.batch();
  torch::stable::parallel_for(0, batch.num_problems, 64, [&](int64_t begin, int64_t end) {
    for (int64_t problem = begin; problem < end; ++problem) project_problem(OneLane{}, batch, problem);
  });
  return arguments.results;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mtl_ext, CPU, m) { m.impl("project_simplex", TORCH_BOX(&project_simplex_cpu)); }

}  // namespace mtl
