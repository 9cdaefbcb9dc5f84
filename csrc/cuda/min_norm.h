#pragma once

#include "cuda/kxk.h"

namespace mtl {

cudaError_t launch_min_norm(const KxkBatch& batch, cudaStream_t stream);

}  // namespace mtl
