#include "cuda/gram.h"

#include <optional>

#include "cuda/device_scope.h"

namespace mtl {
namespace {

Tensor gram_cuda(std::vector<Tensor> list, int64_t num_tasks, std::optional<std::vector<int64_t>> groups) {
  const char* op = "mtl_ext::gram";
  const DeviceScope scope(list.front());
  const TaskGrads grads = check_task_grads(op, std::move(list), num_tasks);
  const int64_t num_groups = groups ? check_groups(op, *groups, grads.num_params) : 0;
  const Groups grouping = groups ? Groups{*groups, num_groups} : Groups{std::vector<int64_t>(grads.num_params, 0), 1};
  const TensorLists lists = tensor_lists(grads);
  Tensor scratch = torch::stable::new_empty(grads.tensors[0], {gram_scratch(lists, grouping)}, ScalarType::Double);
  Tensor gram = new_gram(grads, num_groups);
  check_launch(op, launch_gram(lists, grouping, scratch.mutable_data_ptr<double>(), gram.mutable_data_ptr<double>(),
                               scope.stream()));
  return gram;
}

}  // namespace

MTL_CUDA_LIBRARY(m) { m.impl("gram", TORCH_BOX(&gram_cuda)); }

}  // namespace mtl
