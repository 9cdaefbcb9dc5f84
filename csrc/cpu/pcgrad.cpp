#include "common/kxk/pcgrad.h"

#include <torch/csrc/stable/library.h>

#include "gram_arguments.h"

namespace mtl {
namespace {

Tensor pcgrad_cpu(Tensor gram, Tensor order) {
  const char* op = "mtl_ext::pcgrad";
  check_gram(op, gram, /*batched=*/false);
  check_order(op, order, gram);
  gram = torch::stable::contiguous(gram);
  order = torch::stable::contiguous(order);
  const int num_tasks = static_cast<int>(gram.size(0));
  Tensor result = torch::stable::new_zeros(gram, {num_tasks});
  double* weights = result.mutable_data_ptr<double>();
  std::vector<double> coefficients(num_tasks);
  for (int task = 0; task < num_tasks; ++task) {
    pcgrad_row(OneLane{}, num_tasks, gram.const_data_ptr<double>(),
               order.const_data_ptr<int64_t>() + task * (num_tasks - 1), task, coefficients.data());
    for (int k = 0; k < num_tasks; ++k) weights[k] += coefficients[k];
  }
  return result;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mtl_ext, CPU, m) { m.impl("pcgrad", TORCH_BOX(&pcgrad_cpu)); }

}  // namespace mtl
