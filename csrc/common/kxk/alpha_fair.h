// Alpha-fair weights of K gradients: G w = w^(-1/alpha), w > 0 (alpha = 1: the Nash bargaining solution).
//
// In units in which the gradients have length 1, S = D^-1 G D^-1 with D = sqrt(diag G), and x = d * w with
// d = D / sqrt(tr G), the equation is S x = b * x^(-1/alpha) with b = d^(1/alpha - 1). Its solution minimises a convex
// function, and Newton's method with a step that stays positive and does not overshoot along its line finds it. Where 0
// lies in the convex hull of the gradients there is no solution: x grows without bound, the combination of the unit
// gradients gets short in comparison, and the weights are those of the point of minimum norm.
#pragma once

#include <cmath>

#include "common/kxk/cholesky.h"
#include "common/kxk/min_norm.h"

namespace mtl {

template <class Team>
struct AlphaFairProblem {
  const Team& team;
  const int num_tasks;
  const double* gram;  // [K, K]
  const double alpha;
  double* x;         // [K], 1 for a task whose gradient is zero
  double* factor;    // [K, K] lower triangle
  double* inverse;   // [K] 1 / |g_k|, 0 for a zero gradient
  double* b;         // [K]
  double* products;  // [K] S x
  double* targets;   // [K] b * x^(-1/alpha)
  double* step;      // [K]
  double* trial;     // [K]
  double trace = 0;

  MTL_TEAM_FUNCTION bool present(int k) const { return inverse[k] > 0; }
  MTL_TEAM_FUNCTION double entry(int i, int j) const {
    return i == j ? 1.0 : gram[i * num_tasks + j] * inverse[i] * inverse[j];
  }

  MTL_TEAM_FUNCTION void start() {
    for (int k = 0; k < num_tasks; ++k) trace += fmax(0.0, gram[k * num_tasks + k]);
    for (int k = team.lane; k < num_tasks; k += team.size) {
      const double square = gram[k * num_tasks + k];
      inverse[k] = square > 0 ? 1 / sqrt(square) : 0.0;
      b[k] = square > 0 ? pow(square / trace, 0.5 * (1 / alpha - 1)) : 1.0;
    }
    team.sync();
    for (int k = team.lane; k < num_tasks; k += team.size) {
      double sum = 0;
      for (int j = 0; j < num_tasks; ++j) sum += fabs(entry(k, j));
      x[k] = pow(b[k] / sum, alpha / (1 + alpha));
    }
    evaluate(x);
  }

  // products and targets at a point.
  MTL_TEAM_FUNCTION void evaluate(const double* point) {
    team.sync();
    for (int k = team.lane; k < num_tasks; k += team.size) {
      double sum = 0;
      for (int j = 0; j < num_tasks; ++j) sum += entry(k, j) * point[j];
      products[k] = sum;
      targets[k] = b[k] * pow(point[k], -1 / alpha);
    }
    team.sync();
  }

  struct State {
    double residual = 0;  // max_k |products_k / targets_k - 1|
    double rounding = 0;  // the size of residuals that rounding alone makes
    bool stationary = false;
  };

  MTL_TEAM_FUNCTION State measure() const {
    State state;
    double largest = 0, smallest_target = INFINITY, square = 0;
    for (int k = 0; k < num_tasks; ++k) {
      if (!present(k)) continue;
      const double residual = fabs(products[k] / targets[k] - 1);
      if (residual > state.residual || residual != residual) state.residual = residual;
      largest = fmax(largest, x[k]);
      smallest_target = fmin(smallest_target, targets[k]);
      square += x[k] * products[k];
    }
    state.rounding = 4 * num_tasks * 0x1p-52 * largest / smallest_target;
    state.stationary = square <= 1e-14 * largest * largest;
    return state;
  }

  // step = (S + diag(targets / (alpha x)))^-1 (products - targets). False: the matrix is singular.
  MTL_TEAM_FUNCTION bool newton_step() {
    for (int i = 0; i < num_tasks; ++i) {
      double* row = factor + i * num_tasks;
      for (int j = 0; j <= i; ++j) {
        const double* other = factor + j * num_tasks;
        const double value = i == j ? 1 + targets[i] / (alpha * x[i]) : entry(i, j);
        const double rest = value - dot(team, row, other, j);
        if (i == j && !(rest > 0)) return false;
        team.sync();
        if (team.lane == 0) row[j] = i == j ? sqrt(rest) : rest / other[j];
        team.sync();
      }
    }
    for (int k = team.lane; k < num_tasks; k += team.size) step[k] = present(k) ? products[k] - targets[k] : 0.0;
    team.sync();
    cholesky_solve(team, num_tasks, num_tasks, factor, step);
    return true;
  }

  // Derivative, against the step, of the convex function whose gradient is products - targets.
  MTL_TEAM_FUNCTION double slope() const {
    double partial = 0;
    for (int k = team.lane; k < num_tasks; k += team.size) {
      if (present(k)) partial += (products[k] - targets[k]) * step[k];
    }
    return team.sum(partial);
  }

  // x -= the step, halved until x stays positive and does not overshoot. False: rounding leaves no such step.
  MTL_TEAM_FUNCTION bool advance() {
    const double descent = slope();
    double length = 1;
    for (int halving = 0; halving < 100; ++halving, length /= 2) {
      double outside = 0;
      team.sync();
      for (int k = team.lane; k < num_tasks; k += team.size) {
        trial[k] = x[k] - length * step[k];
        outside += trial[k] > 0 ? 0.0 : 1.0;
      }
      if (team.sum(outside) > 0) continue;
      evaluate(trial);
      if (!(-slope() <= 0.9 * descent)) continue;
      for (int k = team.lane; k < num_tasks; k += team.size) x[k] = trial[k];
      team.sync();
      return true;
    }
    return false;
  }

  // x solves the equation up to the residual that is returned; infinite where there is no solution.
  MTL_TEAM_FUNCTION double solve() {
    start();
    // A task that must get small weights needs about alpha times as many steps.
    const double max_steps = 60 * fmax(1.0, alpha);
    for (int count = 0;; ++count) {
      const State state = measure();
      if (state.residual <= fmax(1e-6, state.rounding)) return state.residual;
      if (state.stationary || count >= max_steps || !newton_step() || !advance()) return INFINITY;
    }
  }
};

struct AlphaFair {
  double alpha;

  static constexpr int workspace(int num_tasks) { return num_tasks * (num_tasks + 6); }

  template <class Team>
  MTL_TEAM_FUNCTION Outcome solve(const Team& team, int num_tasks, const double* gram, double* weights,
                                  double* workspace) const {
    double* vectors = workspace + num_tasks * num_tasks;
    AlphaFairProblem<Team> problem{team,
                                   num_tasks,
                                   gram,
                                   alpha,
                                   weights,
                                   workspace,
                                   vectors,
                                   vectors + num_tasks,
                                   vectors + 2 * num_tasks,
                                   vectors + 3 * num_tasks,
                                   vectors + 4 * num_tasks,
                                   vectors + 5 * num_tasks};
    const double residual = problem.solve();
    team.sync();
    if (std::isfinite(residual)) {
      const double scale = pow(fmax(problem.trace, 0x1p-1022), 0.5 - alpha / (1 + alpha));
      for (int k = team.lane; k < num_tasks; k += team.size) weights[k] *= problem.inverse[k] * scale;
      return {residual, kSolved};
    }
    MinNorm{}.solve(team, num_tasks, gram, weights, workspace);
    double partial = 0;
    for (int i = team.lane; i < num_tasks; i += team.size) {
      for (int j = 0; j < num_tasks; ++j)
        partial += weights[i] * (gram[i * num_tasks + j] / problem.trace) * weights[j];
    }
    return {fmax(0.0, team.sum(partial)), kParetoStationary};
  }
};

}  // namespace mtl
