#include "cuda/dual_cone.h"

#include "cuda/kxk_glue.h"

namespace mtl {
namespace {

std::tuple<Tensor, Tensor, Tensor> dual_cone_cuda(Tensor gram, Tensor lower) {
  return solve_batch("mtl_ext::dual_cone", gram, launch_dual_cone, lower);
}

}  // namespace

MTL_CUDA_LIBRARY(m) { m.impl("dual_cone", TORCH_BOX(&dual_cone_cuda)); }

}  // namespace mtl
