// A list of tasks that grows and shrinks, as active-set methods need it, with the Cholesky factor of the rows and
// columns of a matrix A that the list names. `entry(i, j)` gives A. Appending a task adds a row to the factor, dropping
// one recomputes the rows after it: growing to s tasks costs s^3 / 3 operations in all.
#pragma once

#include <cmath>

#include "common/kxk/team.h"

namespace mtl {

template <class Team>
struct TaskSubset {
  const Team& team;
  const int num_tasks;
  double* factor;  // [K, K] lower triangle L, rows in list order, with reciprocals on the diagonal
  int* tasks;      // [K]
  int size = 0;

  MTL_TEAM_FUNCTION bool contains(int task) const {
    for (int c = 0; c < size; ++c) {
      if (tasks[c] == task) return true;
    }
    return false;
  }

  // A pivot lost to rounding (a task numerically dependent on the others) is held at the rounding level: the solutions
  // stay finite, and the caller notices that it gains nothing.
  template <class Entry>
  MTL_TEAM_FUNCTION void factor_rows(int from, const Entry& entry) {
    for (int i = from; i < size; ++i) {
      double* row = factor + i * num_tasks;
      for (int j = 0; j <= i; ++j) {
        const double* other = factor + j * num_tasks;
        const double rest = entry(tasks[i], tasks[j]) - dot(team, row, other, j);
        team.sync();
        if (team.lane == 0) row[j] = j < i ? rest * other[j] : 1 / sqrt(fmax(rest, 1e-16));
        team.sync();
      }
    }
  }

  template <class Entry>
  MTL_TEAM_FUNCTION void append(int task, const Entry& entry) {
    team.sync();
    if (team.lane == 0) tasks[size] = task;
    ++size;
    team.sync();
    factor_rows(size - 1, entry);
  }

  template <class Entry>
  MTL_TEAM_FUNCTION void drop(int position, const Entry& entry) {
    for (int c = position; c + 1 < size; ++c) {
      const int task = tasks[c + 1];
      team.sync();
      if (team.lane == 0) tasks[c] = task;
      team.sync();
    }
    --size;
    factor_rows(position, entry);
  }

  // Whether less than this is left of the last task's diagonal entry after the others' share.
  MTL_TEAM_FUNCTION bool last_pivot_below(double limit) const {
    const double reciprocal = factor[(size - 1) * (num_tasks + 1)];
    return limit * reciprocal * reciprocal > 1;
  }

  // values = A^-1 values over the list, in list order.
  MTL_TEAM_FUNCTION void solve(double* values) const {
    for (int i = 0; i < size; ++i) {
      const double* row = factor + i * num_tasks;
      const double rest = values[i] - dot(team, row, values, i);
      team.sync();
      if (team.lane == 0) values[i] = rest * row[i];
      team.sync();
    }
    for (int i = size - 1; i >= 0; --i) {
      const double* row = factor + i * num_tasks;
      const double value = values[i] * row[i];
      team.sync();
      for (int j = team.lane; j < i; j += team.size) values[j] -= row[j] * value;
      if (team.lane == 0) values[i] = value;
      team.sync();
    }
  }
};

}  // namespace mtl
