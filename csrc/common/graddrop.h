// The rule by which GradDrop decides a column, for host and device alike.
#pragma once

#include <cmath>
#include <cstdint>

#include "common/dtypes.h"

namespace mtl {

// What the columns of a call have in common. Exactly one of `seed` and a list of uniform numbers is given.
struct DropRule {
  const int64_t* seed;  // [2], seed and step, or null
  const double* leak;   // [K], or null: zeros
  bool sigmoid;
  double kappa;
  bool accumulate;
};

// Feature gradients are summed over the batch in slices: sample b belongs to slice b mod kBatchSlices, slices are
// summed in order and then added in order. Fixed, so that the masks are the same bits on every device.
constexpr int kBatchSlices = 8;

template <class W>
MTL_HOST_DEVICE W sign_of(W value) {
  return static_cast<W>(value > 0) - static_cast<W>(value < 0);
}

// The sign of the gradients that pass: 1, -1, or 0 for none. f(purity) > u is tested without forming the purity
// p = (1 + sum / magnitude) / 2: kappa * sum > (2u - 1) * magnitude for the linear f, and
// tanh(kappa * sum / magnitude) > 2u - 1 for f(p) = sigmoid(4 kappa (p - 1/2)). 2u is exact and no other product meets
// an addition, so the result is the same bits with and without contraction to fused multiply-adds. NaN passes none.
template <class W>
MTL_HOST_DEVICE W passing_sign(W sum, W magnitude, float uniform, bool sigmoid, W kappa) {
  const W threshold = 2 * static_cast<W>(uniform) - 1;
  const W score = sigmoid ? std::tanh(kappa * (sum / magnitude)) : kappa * sum;
  const W bound = sigmoid ? threshold : threshold * magnitude;
  return score > bound ? W(1) : score < bound ? W(-1) : W(0);
}

}  // namespace mtl
