#include "cuda/gram.h"

#include "cuda/device_scope.h"

namespace mtl {
namespace {

Tensor gram_cuda(std::vector<Tensor> list, int64_t num_tasks) {
  const char* op = "mtl_ext::gram";
  const DeviceScope scope(list.front());
  const TaskGrads grads = check_task_grads(op, std::move(list), num_tasks);
  const TensorLists lists = tensor_lists(grads);
  const Tensor& like = grads.tensors[0];
  Tensor scratch = torch::stable::new_empty(like, {gram_scratch(lists)}, ScalarType::Double);
  Tensor gram = torch::stable::new_empty(like, {num_tasks, num_tasks}, ScalarType::Double);
  check_launch(op,
               launch_gram(lists, scratch.mutable_data_ptr<double>(), gram.mutable_data_ptr<double>(), scope.stream()));
  return gram;
}

}  // namespace

MTL_CUDA_LIBRARY(m) { m.impl("gram", TORCH_BOX(&gram_cuda)); }

}  // namespace mtl
