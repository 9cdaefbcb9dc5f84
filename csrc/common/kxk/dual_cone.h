// The shortest combination of K gradients whose weights lie on or above lower bounds: argmin v^T G v, v >= lower. Its
// gradient is the projection of the bounds' combination onto the dual cone {r: g_k^T r >= 0 for all k}.
//
// In units in which the gradients have length 1: S = D^-1 G D^-1 with D = sqrt(diag G), u = D v. An active-set method:
// the tasks above their bounds (`free`) have products (S u)_k = 0, those on them should have none below 0. Each round
// frees the task with the smallest product, and takes the step to the minimum over the free tasks as far as they stay
// above their bounds; a task that arrives at its bound is put back. The step starts from the measured products, so that
// repeating it corrects rounding.
//
// S has a ridge of rounding size on its diagonal: where gradients depend on each other, it chooses among the solutions,
// keeps the factor positive definite and the rounds descending.
#pragma once

#include <cmath>

#include "common/kxk/solve.h"
#include "common/kxk/task_subset.h"

namespace mtl {

constexpr double kRidge = 1e-14;
// Products of this size, relative to sum_k |u_k|, are rounding.
constexpr double kProductRounding = 1e-15;
// Products are compared with the length of the combined gradient, or with this part of sum_k |u_k| where it is shorter.
constexpr double kLengthFloor = 1e-5;
// sum_k |u_k| counts as this much of the largest bound at least: an answer of 0 is never reached to all digits.
constexpr double kTotalFloor = 1e-12;

template <class Team>
struct DualConeProblem {
  const Team& team;
  const int num_tasks;
  const double* gram;  // [K, K]
  double* weights;     // [K] lower bounds, then the solution
  TaskSubset<Team> free;
  double* inverse;   // [K] 1 / |g_k|, 0 for a zero gradient
  double* bounds;    // [K] in units of `unit`
  double* u;         // [K]
  double* products;  // [K] S u
  double* step;      // [K] in list order
  double ridge = kRidge;
  double unit = 0;  // the largest |lower_k| |g_k|
  double length = 0;
  double total = 0;  // sum_k |u_k|

  MTL_TEAM_FUNCTION bool present(int k) const { return inverse[k] > 0; }

  struct Entry {
    const DualConeProblem& problem;
    MTL_TEAM_FUNCTION double operator()(int i, int j) const {
      return i == j ? 1.0 + problem.ridge
                    : problem.gram[i * problem.num_tasks + j] * problem.inverse[i] * problem.inverse[j];
    }
  };

  // u = D lower, all tasks on their bounds. The largest gradient counts as 1 in `unit`, which keeps it finite.
  MTL_TEAM_FUNCTION void start() {
    double largest = 0;
    for (int k = 0; k < num_tasks; ++k) largest = fmax(largest, gram[k * num_tasks + k]);
    const double longest = sqrt(largest);
    for (int k = 0; k < num_tasks; ++k) {
      const double square = gram[k * num_tasks + k];
      if (square > 0) unit = fmax(unit, fabs(weights[k]) * (sqrt(square) / longest));
    }
    for (int k = team.lane; k < num_tasks; k += team.size) {
      const double square = gram[k * num_tasks + k];
      const bool counts = square > 0 && unit > 0;
      inverse[k] = square > 0 ? 1 / sqrt(square) : 0.0;
      bounds[k] = counts ? weights[k] * (sqrt(square) / longest) / unit : 0.0;
      u[k] = bounds[k];
    }
    unit *= longest;
    team.sync();
  }

  MTL_TEAM_FUNCTION void evaluate() {
    team.sync();
    for (int k = team.lane; k < num_tasks; k += team.size) products[k] = 0;
    total = 0;
    for (int j = 0; j < num_tasks; ++j) {
      const double coefficient = u[j] * inverse[j];
      if (coefficient == 0) continue;
      total += fabs(u[j]);
      const double* row = gram + j * num_tasks;
      for (int k = team.lane; k < num_tasks; k += team.size) products[k] += row[k] * inverse[k] * coefficient;
    }
    for (int k = team.lane; k < num_tasks; k += team.size) products[k] += ridge * u[k];
    team.sync();
    length = sqrt(fmax(0.0, dot(team, u, products, num_tasks)));
  }

  // The task on its bound with the smallest product, -1 where rounding could have made it; every lane finds the same.
  MTL_TEAM_FUNCTION int most_violated() const {
    int best = -1;
    double smallest = -kProductRounding * total;
    for (int k = 0; k < num_tasks; ++k) {
      if (products[k] < smallest && !free.contains(k)) {
        smallest = products[k];
        best = k;
      }
    }
    return best;
  }

  MTL_TEAM_FUNCTION double free_residual() const {
    double largest = 0;
    for (int c = 0; c < free.size; ++c) largest = fmax(largest, fabs(products[free.tasks[c]]));
    return largest;
  }

  // What is left of the conditions S u >= 0, = 0 above the bounds.
  MTL_TEAM_FUNCTION double violation() const {
    double worst = 0;
    for (int k = 0; k < num_tasks; ++k) {
      const double product = products[k] - ridge * u[k];
      worst = fmax(worst, u[k] > bounds[k] ? fabs(product) : -product);
    }
    return worst / fmax(length, kLengthFloor * fmax(total, kTotalFloor));
  }

  // Frees a task. A pivot below the ridge shows that G has a negative eigenvalue of that size: the ridge grows until it
  // makes up for it.
  MTL_TEAM_FUNCTION void release(int task) {
    free.append(task, Entry{*this});
    while (free.last_pivot_below(ridge / 2) && ridge < 1) {
      ridge *= 16;
      free.factor_rows(0, Entry{*this});
      evaluate();
    }
  }

  // Moves towards the minimum over the free tasks until one of them arrives at its bound and is taken off the list.
  // False: none does.
  MTL_TEAM_FUNCTION bool advance() {
    team.sync();
    for (int c = team.lane; c < free.size; c += team.size) step[c] = -products[free.tasks[c]];
    team.sync();
    free.solve(step);
    double reach = 1;
    int blocking = -1;
    for (int c = 0; c < free.size; ++c) {
      const int task = free.tasks[c];
      const double distance = step[c] < 0 ? (u[task] - bounds[task]) / -step[c] : INFINITY;
      if (distance <= reach) {
        reach = distance;
        blocking = c;
      }
    }
    team.sync();
    for (int c = team.lane; c < free.size; c += team.size) {
      const int task = free.tasks[c];
      u[task] = c == blocking ? bounds[task] : fmax(bounds[task], u[task] + reach * step[c]);
    }
    team.sync();
    if (blocking >= 0) free.drop(blocking, Entry{*this});
    evaluate();
    return blocking >= 0;
  }

  // Returns the certificate.
  MTL_TEAM_FUNCTION double solve() {
    start();
    evaluate();
    double left = INFINITY;
    // Each round frees one task or corrects rounding; in practice 2 K rounds suffice, the bound only ends a cycle.
    for (int round = 0; round < 10 * num_tasks; ++round) {
      while (free.size > 0 && advance()) {
      }
      const int entering = most_violated();
      if (entering >= 0) {
        release(entering);
        left = INFINITY;
        continue;
      }
      const double residual = free_residual();
      if (residual <= kProductRounding * fmax(total, kTotalFloor) || residual > left / 2) break;
      left = residual;
    }
    team.sync();
    for (int k = team.lane; k < num_tasks; k += team.size) {
      if (u[k] > bounds[k]) weights[k] = fmax(weights[k], u[k] * unit * inverse[k]);
      if (!present(k)) weights[k] = 0;
    }
    return total > 0 ? violation() : 0.0;
  }
};

// `weights` holds the lower bounds when the solver starts. Every finite problem is solved.
struct DualCone {
  static constexpr int workspace(int num_tasks) { return num_tasks * (num_tasks + 6); }

  template <class Team>
  MTL_TEAM_FUNCTION Outcome solve(const Team& team, int num_tasks, const double* gram, double* weights,
                                  double* workspace) const {
    double* vectors = workspace + num_tasks * num_tasks;
    DualConeProblem<Team> problem{team,
                                  num_tasks,
                                  gram,
                                  weights,
                                  {team, num_tasks, workspace, reinterpret_cast<int*>(vectors + 5 * num_tasks)},
                                  vectors,
                                  vectors + num_tasks,
                                  vectors + 2 * num_tasks,
                                  vectors + 3 * num_tasks,
                                  vectors + 4 * num_tasks};
    return {problem.solve(), kSolved};
  }
};

}  // namespace mtl
