// PCGrad's projections of one task, on coefficients: the running gradient is sum_k coefficients[k] g_k, and its inner
// product with g_j is (G c)_j. Projecting along the original g_j changes coefficient j alone.
#pragma once

#include <cstdint>

#include "common/kxk/team.h"

namespace mtl {

// gram [K, K]; order_row [K - 1]: tasks to project against, in turn; coefficients [K]: the result, and the workspace.
template <class Team>
MTL_TEAM_FUNCTION void pcgrad_row(const Team& team, int num_tasks, const double* gram, const int64_t* order_row,
                                  int task, double* coefficients) {
  for (int k = team.lane; k < num_tasks; k += team.size) coefficients[k] = k == task ? 1.0 : 0.0;
  team.sync();
  for (int step = 0; step + 1 < num_tasks; ++step) {
    const int64_t j = order_row[step];
    if (j < 0 || j >= num_tasks || j == task) continue;
    const double* row = gram + j * num_tasks;
    const double product = dot(team, row, coefficients, num_tasks);
    if (product < 0 && row[j] > 0) {
      team.sync();
      if (team.lane == 0) coefficients[j] -= product / row[j];
      team.sync();
    }
  }
}

}  // namespace mtl
