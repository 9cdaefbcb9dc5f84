#include "cuda/min_norm.h"

#include "cuda/kxk_glue.h"

namespace mtl {
namespace {

std::tuple<Tensor, Tensor, Tensor> min_norm_cuda(Tensor gram) {
  return solve_batch("mtl_ext::min_norm", gram, launch_min_norm);
}

}  // namespace

MTL_CUDA_LIBRARY(m) { m.impl("min_norm", TORCH_BOX(&min_norm_cuda)); }

}  // namespace mtl
