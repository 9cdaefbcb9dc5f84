#include "cuda/project_simplex.h"

#include "cuda/device_scope.h"
#include "project_simplex_arguments.h"

namespace mtl {
namespace {

std::tuple<Tensor, Tensor, Tensor> project_simplex_cuda(Tensor values) {
  const char* op = "mtl_ext::project_simplex";
  const DeviceScope scope(values);
  const SimplexArguments arguments(op, values);
  check_launch(op, launch_project_simplex(arguments.batch(), scope.stream()));
  return arguments.results;
}

}  // namespace

MTL_CUDA_LIBRARY(m) { m.impl("project_simplex", TORCH_BOX(&project_simplex_cuda)); }

}  // namespace mtl
