#include "cuda/finite_difference.h"

#include "cuda/device_scope.h"
#include "perturb_arguments.h"

namespace mtl {
namespace {

void write_difference(const char* op, const TaskGrads& rows, const Tensor& eps, bool accumulate,
                      const std::vector<Tensor>& out, cudaStream_t stream) {
  TensorLists lists = tensor_lists(rows);
  ++lists.num_rows;
  for (const Tensor& tensor : out) lists.data.push_back(tensor.data_ptr());
  check_launch(op, launch_finite_difference(lists, eps.const_data_ptr<double>(), accumulate, stream));
}

std::vector<Tensor> finite_difference_cuda(std::vector<Tensor> plus, std::vector<Tensor> minus, Tensor eps) {
  const char* op = "mtl_ext::finite_difference";
  const DeviceScope scope(plus.at(0));
  const TaskGrads rows = check_difference(op, plus, minus, eps, {});
  const std::vector<Tensor> out = new_outputs(rows);
  write_difference(op, rows, eps, /*accumulate=*/false, out, scope.stream());
  return out;
}

void finite_difference_into_cuda(std::vector<Tensor> out, std::vector<Tensor> plus, std::vector<Tensor> minus,
                                 Tensor eps, bool accumulate) {
  const char* op = "mtl_ext::finite_difference_";
  const DeviceScope scope(plus.at(0));
  write_difference(op, check_difference(op, plus, minus, eps, {{"out", &out}}), eps, accumulate, out, scope.stream());
}

}  // namespace

MTL_CUDA_LIBRARY(m) {
  m.impl("finite_difference", TORCH_BOX(&finite_difference_cuda));
  m.impl("finite_difference_", TORCH_BOX(&finite_difference_into_cuda));
}

}  // namespace mtl
