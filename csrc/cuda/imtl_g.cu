#include "common/kxk/imtl_g.h"
#include "cuda/imtl_g.h"
#include "cuda/kxk.cuh"

namespace mtl {

cudaError_t launch_imtl_g(const KxkBatch& batch, double eps, cudaStream_t stream) {
  return launch_kxk(ImtlG{eps}, batch, stream);
}

}  // namespace mtl
