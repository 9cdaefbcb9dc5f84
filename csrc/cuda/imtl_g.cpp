#include "cuda/imtl_g.h"

#include "cuda/kxk_glue.h"

namespace mtl {
namespace {

std::tuple<Tensor, Tensor, Tensor> imtl_g_cuda(Tensor gram, double eps) {
  return solve_batch("mtl_ext::imtl_g", gram,
                     [eps](const KxkBatch& batch, cudaStream_t stream) { return launch_imtl_g(batch, eps, stream); });
}

}  // namespace

MTL_CUDA_LIBRARY(m) { m.impl("imtl_g", TORCH_BOX(&imtl_g_cuda)); }

}  // namespace mtl
