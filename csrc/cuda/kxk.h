// A batch of K×K problems, as the glue hands it to a solver's launcher.
#pragma once

#include <cstdint>

#include "cuda/runtime.h"

namespace mtl {

constexpr int kMaxSolverTasks = 64;
// What every block may have on all supported architectures (sm_86 and sm_89 have the least).
constexpr int kMaxSolverSharedBytes = 99 * 1024;

struct KxkBatch {
  int64_t num_problems;
  int num_tasks;
  const double* gram;   // [B / rows_per_gram, K, K]
  double* weights;      // [B, K]
  double* certificate;  // [B]
  int32_t* status;      // [B]
  int rows_per_gram = 1;
  const double* rows = nullptr;  // [B, K]: what each problem brings beside its matrix
};

}  // namespace mtl
