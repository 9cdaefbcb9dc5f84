#include "common/kxk/dual_cone.h"
#include "cuda/dual_cone.h"
#include "cuda/kxk.cuh"

namespace mtl {

cudaError_t launch_dual_cone(const KxkBatch& batch, cudaStream_t stream) {
  return launch_kxk(DualCone{}, batch, stream);
}

}  // namespace mtl
