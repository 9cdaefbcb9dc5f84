// Dense Cholesky factors, row by row in place, over a team.
#pragma once

#include "common/kxk/team.h"

namespace mtl {

// Solves L L^T x = values in place. L: lower triangle [size, size] with rows `stride` apart.
template <class Team>
MTL_TEAM_FUNCTION void cholesky_solve(const Team& team, int size, int stride, const double* factor, double* values) {
  for (int i = 0; i < size; ++i) {
    const double* row = factor + i * stride;
    const double rest = values[i] - dot(team, row, values, i);
    team.sync();
    if (team.lane == 0) values[i] = rest / row[i];
    team.sync();
  }
  for (int i = size - 1; i >= 0; --i) {
    const double* row = factor + i * stride;
    const double value = values[i] / row[i];
    team.sync();
    for (int j = team.lane; j < i; j += team.size) values[j] -= row[j] * value;
    if (team.lane == 0) values[i] = value;
    team.sync();
  }
}

}  // namespace mtl
