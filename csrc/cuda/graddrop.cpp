#include "cuda/graddrop.h"

#include <optional>

#include "cuda/device_scope.h"
#include "graddrop_arguments.h"

namespace mtl {
namespace {

void write_graddrop(const char* op, const DropArguments& arguments, bool sigmoid, double kappa, bool accumulate,
                    cudaStream_t stream) {
  const TaskGrads& grads = arguments.grads;
  MTL_CHECK(grads.num_tasks <= kMaxGradDropTasks, op, ": num_tasks is ", grads.num_tasks,
            ", the CUDA kernel takes at most ", kMaxGradDropTasks);
  TensorLists lists = tensor_lists(grads);
  for (const std::vector<Tensor>* row : {&arguments.out, &arguments.uniform}) {
    if (row->empty()) continue;
    ++lists.num_rows;
    for (const Tensor& tensor : *row) lists.data.push_back(tensor.data_ptr());
  }
  const DropRule rule{arguments.seed_data(), arguments.leak_data(), sigmoid, kappa, accumulate};
  check_launch(op, launch_graddrop(lists, static_cast<int>(grads.num_tasks), rule, stream));
}

std::vector<Tensor> graddrop_cuda(std::vector<Tensor> list, int64_t num_tasks, std::optional<Tensor> seed,
                                  std::vector<Tensor> uniform, std::optional<Tensor> leak, bool sigmoid, double kappa) {
  const char* op = "mtl_ext::graddrop";
  const DeviceScope scope(list.at(0));
  const DropArguments arguments = check_graddrop(op, nullptr, std::move(list), num_tasks, seed, uniform, leak);
  write_graddrop(op, arguments, sigmoid, kappa, /*accumulate=*/false, scope.stream());
  return arguments.out;
}

void graddrop_into_cuda(std::vector<Tensor> out, std::vector<Tensor> list, int64_t num_tasks,
                        std::optional<Tensor> seed, std::vector<Tensor> uniform, std::optional<Tensor> leak,
                        bool sigmoid, double kappa, bool accumulate) {
  const char* op = "mtl_ext::graddrop_";
  const DeviceScope scope(list.at(0));
  const DropArguments arguments = check_graddrop(op, &out, std::move(list), num_tasks, seed, uniform, leak);
  write_graddrop(op, arguments, sigmoid, kappa, accumulate, scope.stream());
}

}  // namespace

MTL_CUDA_LIBRARY(m) {
  m.impl("graddrop", TORCH_BOX(&graddrop_cuda));
  m.impl("graddrop_", TORCH_BOX(&graddrop_into_cuda));
}

}  // namespace mtl
