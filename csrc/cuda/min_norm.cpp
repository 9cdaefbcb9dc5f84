#include "cuda/min_norm.h"

#include <tuple>

#include "cuda/device_scope.h"

namespace mtl {
namespace {

std::tuple<Tensor, Tensor, Tensor> min_norm_cuda(Tensor gram) {
  const char* op = "mtl_ext::min_norm";
  const DeviceScope scope(gram);
  check_gram(op, gram, /*batched=*/true);
  gram = torch::stable::contiguous(gram);
  const auto sizes = gram.sizes();
  const std::vector<int64_t> shape(sizes.begin(), sizes.end() - 1);
  const std::vector<int64_t> batch(shape.begin(), shape.end() - 1);
  const int64_t num_tasks = shape.back();
  MTL_CHECK(num_tasks <= kMaxMinNormTasks, op, ": gram has K = ", num_tasks, " tasks, the CUDA kernel takes at most ",
            kMaxMinNormTasks, ": move gram to the CPU");
  Tensor weights = torch::stable::new_empty(gram, shape);
  Tensor certificate = torch::stable::new_empty(gram, batch);
  Tensor status = torch::stable::new_empty(gram, batch, ScalarType::Int);
  check_launch(
      op, launch_min_norm(gram.numel() / (num_tasks * num_tasks), static_cast<int>(num_tasks),
                          gram.const_data_ptr<double>(), weights.mutable_data_ptr<double>(),
                          certificate.mutable_data_ptr<double>(), status.mutable_data_ptr<int32_t>(), scope.stream()));
  return {weights, certificate, status};
}

}  // namespace

MTL_CUDA_LIBRARY(m) { m.impl("min_norm", TORCH_BOX(&min_norm_cuda)); }

}  // namespace mtl
