#include "cuda/combine.h"

#include "cuda/device_scope.h"

namespace mtl {
namespace {

// out[p] = sum over k of the weighted grads[k * P + p], in the memory order that out and grads share.
void write_combined(const char* op, const TaskGrads& grads, const Tensor& weights, bool accumulate,
                    const std::vector<Tensor>& out, cudaStream_t stream) {
  MTL_CHECK(grads.num_tasks <= kMaxCombineTasks, op, ": weights has K = ", grads.num_tasks,
            " tasks, the CUDA kernel takes at most ", kMaxCombineTasks, ": combine them in parts");
  TensorLists lists = tensor_lists(grads);
  ++lists.num_rows;
  for (const Tensor& tensor : out) lists.data.push_back(tensor.data_ptr());
  const Tensor values = torch::stable::contiguous(weights);
  const TaskWeights task_weights{values.const_data_ptr<double>(), weights.dim() == 1 ? 0 : grads.num_tasks};
  check_launch(op, launch_combine(lists, task_weights, accumulate, stream));
}

std::vector<Tensor> combine_cuda(std::vector<Tensor> list, Tensor weights) {
  const char* op = "mtl_ext::combine";
  const DeviceScope scope(weights);
  const int64_t num_tasks = check_weights(op, weights, list);
  const TaskGrads grads = check_task_grads(op, std::move(list), num_tasks);
  const std::vector<Tensor> out = new_outputs(grads);
  write_combined(op, grads, weights, /*accumulate=*/false, out, scope.stream());
  return out;
}

void combine_into_cuda(std::vector<Tensor> out, std::vector<Tensor> list, Tensor weights, bool accumulate) {
  const char* op = "mtl_ext::combine_";
  const DeviceScope scope(weights);
  const int64_t num_tasks = check_weights(op, weights, list);
  const TaskGrads grads = check_task_grads(op, std::move(list), num_tasks, &out);
  write_combined(op, grads, weights, accumulate, out, scope.stream());
}

}  // namespace

MTL_CUDA_LIBRARY(m) {
  m.impl("combine", TORCH_BOX(&combine_cuda));
  m.impl("combine_", TORCH_BOX(&combine_into_cuda));
}

}  // namespace mtl
