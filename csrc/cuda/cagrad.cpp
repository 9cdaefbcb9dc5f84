#include "cuda/cagrad.h"

#include "cuda/kxk_glue.h"
#include "gram_arguments.h"

namespace mtl {
namespace {

std::tuple<Tensor, Tensor, Tensor> cagrad_cuda(Tensor gram, double c, double eps) {
  const char* op = "mtl_ext::cagrad";
  check_gram(op, gram, /*batched=*/true);
  check_cagrad(op, c, eps);
  return solve_batch(op, gram,
                     [&](const KxkBatch& batch, cudaStream_t stream) { return launch_cagrad(batch, c, eps, stream); });
}

}  // namespace

MTL_CUDA_LIBRARY(m) { m.impl("cagrad", TORCH_BOX(&cagrad_cuda)); }

}  // namespace mtl
