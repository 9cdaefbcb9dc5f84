#include "cuda/saliency_entropy.h"

#include <tuple>

#include "cuda/device_scope.h"
#include "saliency_arguments.h"

namespace mtl {
namespace {

TaskGrads check_saliency(const char* op, std::vector<Tensor> list, int64_t num_tasks) {
  TaskGrads grads = check_task_grads(op, std::move(list), num_tasks);
  MTL_CHECK(num_tasks <= kMaxEntropyTasks, op, ": num_tasks is ", num_tasks, ", the CUDA kernel takes at most ",
            kMaxEntropyTasks);
  return grads;
}

std::tuple<Tensor, Tensor> saliency_entropy_cuda(std::vector<Tensor> list, int64_t num_tasks) {
  const char* op = "mtl_ext::saliency_entropy";
  const DeviceScope scope(list.at(0));
  const TaskGrads grads = check_saliency(op, std::move(list), num_tasks);
  const TensorLists lists = tensor_lists(grads);
  const Tensor& like = grads.tensors[0];
  Tensor scratch = torch::stable::new_empty(like, {saliency_entropy_scratch(lists)}, ScalarType::Double);
  Tensor entropy = torch::stable::new_empty(like, {}, ScalarType::Double);
  Tensor zero_columns = torch::stable::new_empty(like, {}, ScalarType::Long);
  check_launch(op, launch_saliency_entropy(lists, num_positions(grads), scratch.mutable_data_ptr<double>(),
                                           entropy.mutable_data_ptr<double>(), zero_columns.mutable_data_ptr<int64_t>(),
                                           scope.stream()));
  return {entropy, zero_columns};
}

std::vector<Tensor> saliency_entropy_map_cuda(std::vector<Tensor> list, int64_t num_tasks) {
  const char* op = "mtl_ext::saliency_entropy_map";
  const DeviceScope scope(list.at(0));
  const TaskGrads grads = check_saliency(op, std::move(list), num_tasks);
  const std::vector<Tensor> map = new_map(grads);
  TensorLists lists = tensor_lists(grads);
  ++lists.num_rows;
  for (const Tensor& tensor : map) lists.data.push_back(tensor.data_ptr());
  check_launch(op, launch_saliency_entropy_map(lists, scope.stream()));
  return map;
}

}  // namespace

MTL_CUDA_LIBRARY(m) {
  m.impl("saliency_entropy", TORCH_BOX(&saliency_entropy_cuda));
  m.impl("saliency_entropy_map", TORCH_BOX(&saliency_entropy_map_cuda));
}

}  // namespace mtl
