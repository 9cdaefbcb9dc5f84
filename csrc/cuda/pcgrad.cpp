#include "cuda/pcgrad.h"

#include "cuda/device_scope.h"
#include "gram_arguments.h"

namespace mtl {
namespace {

Tensor pcgrad_cuda(Tensor gram, Tensor order) {
  const char* op = "mtl_ext::pcgrad";
  const DeviceScope scope(gram);
  check_gram(op, gram, /*batched=*/false);
  check_order(op, order, gram);
  const int64_t num_tasks = gram.size(0);
  MTL_CHECK(num_tasks <= kMaxPcgradTasks, op, ": gram has K = ", num_tasks, " tasks, the CUDA kernel takes at most ",
            kMaxPcgradTasks, ": move gram and order to the CPU");
  gram = torch::stable::contiguous(gram);
  order = torch::stable::contiguous(order);
  Tensor weights = torch::stable::new_empty(gram, {num_tasks});
  check_launch(op, launch_pcgrad(static_cast<int>(num_tasks), gram.const_data_ptr<double>(),
                                 order.const_data_ptr<int64_t>(), weights.mutable_data_ptr<double>(), scope.stream()));
  return weights;
}

}  // namespace

MTL_CUDA_LIBRARY(m) { m.impl("pcgrad", TORCH_BOX(&pcgrad_cuda)); }

}  // namespace mtl
