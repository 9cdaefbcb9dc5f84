#include "cuda/aligned.h"

#include "aligned_arguments.h"
#include "cuda/kxk_glue.h"

namespace mtl {
namespace {

std::tuple<Tensor, Tensor, Tensor> aligned_cuda(Tensor gram, std::string scale_mode, double eps,
                                                std::optional<Tensor> preference) {
  const char* op = "mtl_ext::aligned";
  const DeviceScope scope(gram);
  const Aligned solver = check_aligned(op, gram, preference, scale_mode, eps);
  const auto launch = [&](const KxkBatch& batch, cudaStream_t stream) { return launch_aligned(batch, solver, stream); };
  return without_rows(solve_batch(op, gram, launch, preference_rows(gram, preference)), preference.has_value());
}

}  // namespace

MTL_CUDA_LIBRARY(m) { m.impl("aligned", TORCH_BOX(&aligned_cuda)); }

}  // namespace mtl
