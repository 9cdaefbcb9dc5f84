#include "common/kxk/min_norm.h"

#include <torch/csrc/stable/library.h>

#include <tuple>

#include "task_grads.h"

namespace mtl {
namespace {

std::tuple<Tensor, Tensor, Tensor> min_norm_cpu(Tensor gram) {
  check_gram("mtl_ext::min_norm", gram, /*batched=*/true);
  gram = torch::stable::contiguous(gram);
  const auto sizes = gram.sizes();
  const std::vector<int64_t> shape(sizes.begin(), sizes.end() - 1);
  const std::vector<int64_t> batch(shape.begin(), shape.end() - 1);
  const int num_tasks = static_cast<int>(shape.back());
  const int64_t num_problems = gram.numel() / (int64_t{num_tasks} * num_tasks);
  Tensor weights = torch::stable::new_empty(gram, shape);
  Tensor certificate = torch::stable::new_empty(gram, batch);
  Tensor status = torch::stable::new_empty(gram, batch, ScalarType::Int);
  const double* problems = gram.const_data_ptr<double>();
  double* solutions = weights.mutable_data_ptr<double>();
  double* gaps = certificate.mutable_data_ptr<double>();
  int32_t* outcomes = status.mutable_data_ptr<int32_t>();
  torch::stable::parallel_for(0, num_problems, 16, [&](int64_t begin, int64_t end) {
    std::vector<double> workspace(min_norm_workspace(num_tasks));
    for (int64_t i = begin; i < end; ++i) {
      min_norm(OneLane{}, num_tasks, problems + i * num_tasks * num_tasks, solutions + i * num_tasks, gaps + i,
               outcomes + i, workspace.data());
    }
  });
  return {weights, certificate, status};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mtl_ext, CPU, m) { m.impl("min_norm", TORCH_BOX(&min_norm_cpu)); }

}  // namespace mtl
