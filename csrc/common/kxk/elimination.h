// Symmetric positive definite systems by elimination without square roots, over a team.
#pragma once

#include <cmath>

#include "common/kxk/team.h"

namespace mtl {

// solution = A^-1 b. `rows`: [size, size + 1], the upper triangle of A with b as last column; overwritten. No exact
// pivot may lie below `least_pivot`, which one that rounding has taken there is held at.
template <class Team>
MTL_TEAM_FUNCTION void solve_by_elimination(const Team& team, int size, double least_pivot, double* rows,
                                            double* solution) {
  const int stride = size + 1;
#pragma unroll 1
  for (int j = 0; j < size; ++j) {
    team.sync();
    const double* pivot_row = rows + j * stride;
    const double inverse = 1 / fmax(pivot_row[j], least_pivot);
    for (int k = j + 1; k < size; ++k) {
      const double multiple = pivot_row[k] * inverse;
      for (int i = k + team.lane; i <= size; i += team.size) rows[k * stride + i] -= multiple * pivot_row[i];
    }
  }
#pragma unroll 1
  for (int j = size - 1; j >= 0; --j) {
    team.sync();
    const double* row = rows + j * stride;
    const double known = dot(team, row + j + 1, solution + j + 1, size - j - 1);
    if (team.lane == 0) solution[j] = (row[size] - known) / fmax(row[j], least_pivot);
  }
  team.sync();
}

}  // namespace mtl
