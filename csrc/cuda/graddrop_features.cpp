#include "cuda/graddrop_features.h"

#include <optional>

#include "cuda/device_scope.h"
#include "graddrop_arguments.h"

namespace mtl {
namespace {

std::vector<Tensor> graddrop_features_cuda(std::vector<Tensor> list, int64_t num_tasks, std::vector<Tensor> features,
                                           std::optional<Tensor> seed, std::vector<Tensor> uniform,
                                           std::optional<Tensor> leak, bool sigmoid, double kappa) {
  const char* op = "mtl_ext::graddrop_features";
  const DeviceScope scope(list.at(0));
  const DropArguments arguments =
      check_graddrop_features(op, std::move(list), num_tasks, std::move(features), seed, uniform, leak);
  const TaskGrads& grads = arguments.grads;
  MTL_CHECK(grads.num_tasks <= kMaxFeatureTasks, op, ": num_tasks is ", grads.num_tasks,
            ", the CUDA kernel takes at most ", kMaxFeatureTasks);
  TensorLists lists = tensor_lists(grads);
  for (const std::vector<Tensor>* row : {&arguments.features, &arguments.out, &arguments.uniform}) {
    if (row->empty()) continue;
    ++lists.num_rows;
    for (const Tensor& tensor : *row) lists.data.push_back(tensor.data_ptr());
  }
  std::vector<int64_t> batch(grads.num_params, 0);
  for (int64_t param = 0; param < grads.num_params; ++param) {
    if (grads.numel[param] == 0) continue;
    batch[param] = arguments.features[param].size(0);
    lists.numel[param] /= batch[param];
  }
  const DropRule rule{arguments.seed_data(), arguments.leak_data(), sigmoid, kappa, /*accumulate=*/false};
  check_launch(op, launch_graddrop_features(lists, batch, static_cast<int>(grads.num_tasks), rule, scope.stream()));
  return arguments.out;
}

}  // namespace

MTL_CUDA_LIBRARY(m) { m.impl("graddrop_features", TORCH_BOX(&graddrop_features_cuda)); }

}  // namespace mtl
