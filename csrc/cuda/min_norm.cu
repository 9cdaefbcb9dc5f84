#include "common/kxk/min_norm.h"
#include "cuda/kxk.cuh"
#include "cuda/min_norm.h"

namespace mtl {

cudaError_t launch_min_norm(const KxkBatch& batch, cudaStream_t stream) { return launch_kxk(MinNorm{}, batch, stream); }

}  // namespace mtl
