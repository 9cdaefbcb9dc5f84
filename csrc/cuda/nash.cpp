#include "cuda/nash.h"

#include "cuda/kxk_glue.h"

namespace mtl {
namespace {

std::tuple<Tensor, Tensor, Tensor> nash_cuda(Tensor gram) { return solve_batch("mtl_ext::nash", gram, launch_nash); }

}  // namespace

MTL_CUDA_LIBRARY(m) { m.impl("nash", TORCH_BOX(&nash_cuda)); }

}  // namespace mtl
