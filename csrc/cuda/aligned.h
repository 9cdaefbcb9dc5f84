#pragma once

#include "common/kxk/aligned.h"
#include "cuda/kxk.h"

namespace mtl {

cudaError_t launch_aligned(const KxkBatch& batch, const Aligned& solver, cudaStream_t stream);

}  // namespace mtl
