#include "cuda/perturb.h"

#include <tuple>

#include "cuda/device_scope.h"
#include "perturb_arguments.h"

namespace mtl {
namespace {

// Writes both sides and returns eps.
Tensor write_perturbed(const char* op, const TaskGrads& rows, double radius, bool relative,
                       const std::vector<Tensor>& plus, const std::vector<Tensor>& minus, cudaStream_t stream) {
  TensorLists lists = tensor_lists(rows);
  lists.num_rows += 2;
  for (const std::vector<Tensor>* side : {&plus, &minus}) {
    for (const Tensor& tensor : *side) lists.data.push_back(tensor.data_ptr());
  }
  const Tensor& like = rows.tensors[0];
  Tensor scratch = torch::stable::new_empty(like, {perturb_scratch(lists)}, ScalarType::Double);
  Tensor eps = torch::stable::new_empty(like, {}, ScalarType::Double);
  check_launch(op, launch_perturb(lists, radius, relative, scratch.mutable_data_ptr<double>(),
                                  eps.mutable_data_ptr<double>(), stream));
  return eps;
}

std::tuple<std::vector<Tensor>, std::vector<Tensor>, Tensor> perturb_cuda(std::vector<Tensor> params,
                                                                          std::vector<Tensor> direction, double radius,
                                                                          bool relative) {
  const char* op = "mtl_ext::perturb";
  const DeviceScope scope(params.at(0));
  const TaskGrads rows = check_perturb(op, params, direction, {});
  const std::vector<Tensor> plus = new_outputs(rows);
  const std::vector<Tensor> minus = new_outputs(rows);
  const Tensor eps = write_perturbed(op, rows, radius, relative, plus, minus, scope.stream());
  return {plus, minus, eps};
}

Tensor perturb_into_cuda(std::vector<Tensor> plus, std::vector<Tensor> minus, std::vector<Tensor> params,
                         std::vector<Tensor> direction, double radius, bool relative) {
  const char* op = "mtl_ext::perturb_";
  const DeviceScope scope(params.at(0));
  const TaskGrads rows = check_perturb(op, params, direction, {{"plus", &plus}, {"minus", &minus}});
  return write_perturbed(op, rows, radius, relative, plus, minus, scope.stream());
}

}  // namespace

MTL_CUDA_LIBRARY(m) {
  m.impl("perturb", TORCH_BOX(&perturb_cuda));
  m.impl("perturb_", TORCH_BOX(&perturb_into_cuda));
}

}  // namespace mtl
