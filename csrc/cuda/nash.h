#pragma once

#include "cuda/kxk.h"

namespace mtl {

cudaError_t launch_nash(const KxkBatch& batch, cudaStream_t stream);

}  // namespace mtl
