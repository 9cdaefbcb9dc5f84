// The sizes of a finite difference, for host and device alike.
#pragma once

#include <cmath>

#include "common/dtypes.h"

namespace mtl {

// eps from the squared norms: 0 for a zero direction; a norm of infinity or NaN makes NaN of eps instead of 0.
MTL_HOST_DEVICE double step_size(double radius, bool relative, double params_square, double direction_square) {
  const double norm = sqrt(direction_square);
  const double length = relative ? radius * sqrt(params_square) : radius;
  return norm == 0 ? 0 : length / norm + (norm - norm);
}

// The factor of a central difference. eps = 0 gives 0: where nothing moved there is no difference.
MTL_HOST_DEVICE double difference_factor(double eps) { return eps == 0 ? 0 : 0.5 / eps; }

}  // namespace mtl
