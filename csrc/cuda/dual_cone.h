#pragma once

#include "cuda/kxk.h"

namespace mtl {

cudaError_t launch_dual_cone(const KxkBatch& batch, cudaStream_t stream);

}  // namespace mtl
