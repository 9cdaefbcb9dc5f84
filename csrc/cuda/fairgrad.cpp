#include "cuda/fairgrad.h"

#include "cuda/kxk_glue.h"

namespace mtl {
namespace {

std::tuple<Tensor, Tensor, Tensor> fairgrad_cuda(Tensor gram, double alpha) {
  check_alpha("mtl_ext::fairgrad", alpha);
  return solve_batch("mtl_ext::fairgrad", gram,
                     [=](const KxkBatch& batch, cudaStream_t stream) { return launch_fairgrad(batch, alpha, stream); });
}

}  // namespace

MTL_CUDA_LIBRARY(m) { m.impl("fairgrad", TORCH_BOX(&fairgrad_cuda)); }

}  // namespace mtl
