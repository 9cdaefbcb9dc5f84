#pragma once

#include "common/kxk/gradvac.h"
#include "cuda/runtime.h"

namespace mtl {

// Their K x K coefficients, K products per warp and K inverse norms fit the shared memory of a block on every
// architecture from sm_80.
constexpr int kMaxGradvacTasks = 104;

cudaError_t launch_gradvac(const GradvacBatch& batch, cudaStream_t stream);

}  // namespace mtl
