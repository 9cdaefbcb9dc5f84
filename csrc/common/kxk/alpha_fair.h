// Alpha-fair weights of K gradients: G w = w^(-q), w > 0, with q = 1 / alpha (alpha = 1: the Nash bargaining solution).
//
// In units in which the gradients have length 1, S = D^-1 G D^-1 with D = sqrt(diag G), and x = d * w with
// d = D / sqrt(tr G), the equation is S x = t(x), t = d^(q - 1) * x^(-q): x minimises a convex function. There is a
// solution unless 0 lies in the convex hull of the gradients, which the point of minimum norm of S decides beforehand.
//
// Newton's step is dx = H^-1 (t - S x), H = S + diag(q t / x). A task that gains follows it as it is; one that loses
// follows the same line in its target t instead of in x, so that x stays positive, and falls by any number of decades
// in one step. That makes a line search unnecessary: 6 steps in the median for alpha = 1, 10 for alpha = 10. A small
// step goes along the line of whichever is larger, x or t: where gradients nearly cancel, rounding keeps x moving to
// and fro, and the error of second order should fall on the other.
#pragma once

#include <cmath>

#include "common/kxk/elimination.h"
#include "common/kxk/min_norm.h"

namespace mtl {

// The residual of a task is relative to its target or to this part of the magnitudes that cancel in (S x)_k.
constexpr double kResidualFloor = 1e-6;
// Where x is held, far below what a float64 can add to the others.
constexpr double kSmallest = 1e-260;
// Squared length, over K, below which a combination of the unit gradients counts as 0.
constexpr double kStationary = 1e-14;

template <class Team>
struct AlphaFairProblem {
  const Team& team;
  const int num_tasks;
  const double* gram;  // [K, K]
  const double alpha;
  double* unit;       // [K, K] S; 0 in the row and column of a zero gradient
  double* system;     // [K, K + 1]
  double* x;          // [K] 0 for a zero gradient
  double* root;       // [K] sqrt(x / t(x))
  double* target;     // [K] t(x)
  double* excess;     // [K] S x - t(x), then the solution of Newton's system
  double* inverse;    // [K] 1 / |g_k|, 0 for a zero gradient
  double* log_scale;  // [K] log of d^(q - 1)
  double log_trace = 0;

  MTL_TEAM_FUNCTION bool present(int k) const { return inverse[k] > 0; }

  MTL_TEAM_FUNCTION void scale_to_unit() {
    double trace = 0;
    for (int k = 0; k < num_tasks; ++k) trace += fmax(0.0, gram[k * num_tasks + k]);
    log_trace = trace > 0 ? log(trace) : 0.0;
#pragma unroll 1
    for (int k = team.lane; k < num_tasks; k += team.size) {
      const double square = gram[k * num_tasks + k];
      inverse[k] = square > 0 ? 1 / sqrt(square) : 0.0;
      log_scale[k] = square > 0 ? (0.5 / alpha - 0.5) * (log(square) - log_trace) : 0.0;
    }
    team.sync();
    for (int i = 0; i < num_tasks; ++i) {
      for (int j = team.lane; j < num_tasks; j += team.size) {
        const double mean = 0.5 * gram[i * num_tasks + j] + 0.5 * gram[j * num_tasks + i];
        unit[i * num_tasks + j] = i == j ? (present(i) ? 1.0 : 0.0) : mean * (inverse[i] * inverse[j]);
      }
    }
    team.sync();
  }

  // Whether the sum of the unit gradients plainly improves every task: the usual case, in which the search for a
  // combination of length 0 can be spared.
  MTL_TEAM_FUNCTION bool sum_improves_all() const {
    double opposed = 0;
    for (int k = team.lane; k < num_tasks; k += team.size) {
      double product = 0;
      for (int j = 0; j < num_tasks; ++j) product += unit[j * num_tasks + k];
      opposed += present(k) && product < 0.01 ? 1.0 : 0.0;
    }
    return team.sum(opposed) == 0;
  }

  // The squared length of the shortest combination of the unit gradients with weights on the simplex.
  MTL_TEAM_FUNCTION double shortest_combination(double* weights) {
    MinNorm{}.solve(team, num_tasks, unit, weights, system);
    team.sync();
    double square = 0;
    for (int k = team.lane; k < num_tasks; k += team.size) {
      double product = 0;
      for (int j = 0; j < num_tasks; ++j) product += unit[j * num_tasks + k] * weights[j];
      square += weights[k] * product;
    }
    return fmax(0.0, team.sum(square));
  }

  // What solves the equation where the gradients are orthogonal, with the other products counted as if in the way.
  MTL_TEAM_FUNCTION void start() {
#pragma unroll 1
    for (int k = team.lane; k < num_tasks; k += team.size) {
      double sum = 0;
      for (int j = 0; j < num_tasks; ++j) sum += fabs(unit[j * num_tasks + k]);
      x[k] = present(k) ? exp((log_scale[k] - log(sum)) * alpha / (1 + alpha)) : 0.0;
    }
  }

  // Bounds x and sets its targets; the bounds keep every product below from overflowing.
  MTL_TEAM_FUNCTION void evaluate() {
#pragma unroll 1
    for (int k = team.lane; k < num_tasks; k += team.size) {
      if (!present(k)) continue;
      x[k] = fmin(fmax(x[k], kSmallest), 1e90);
      target[k] = exp(fmin(fmax(log_scale[k] - log(x[k]) / alpha, -300.0), 300.0));
    }
    team.sync();
  }

  // Sets the excess and returns the residual, the same on every lane; at most 4e-9 + 1e-11 where `converged`.
  MTL_TEAM_FUNCTION double measure(bool& converged) {
    double unsolved = 0;
#pragma unroll 1
    for (int k = team.lane; k < num_tasks; k += team.size) {
      double product = 0, magnitude = 0;
      for (int j = 0; j < num_tasks; ++j) {
        const double term = unit[j * num_tasks + k] * x[j];
        product += term;
        magnitude += fabs(term);
      }
      excess[k] = present(k) ? product - target[k] : 0.0;
      const double error = x[k] > kSmallest || excess[k] < 0 ? fabs(excess[k]) : 0.0;
      root[k] = error > 0 ? error / fmax(target[k], kResidualFloor * magnitude) : 0.0;
      unsolved += error > 0 && !(error <= 1e-11 * target[k] + 4e-15 * magnitude) ? 1.0 : 0.0;
    }
    converged = team.sum(unsolved) == 0;
    team.sync();
    double residual = 0;
    for (int k = 0; k < num_tasks; ++k) residual = fmax(residual, root[k]);
    team.sync();
    return residual;
  }

  // The step dx: (q + E S E) z = -E excess with E = sqrt(x / t) and dx / x = z / sqrt(x t), a system whose eigenvalues
  // are at least q.
  MTL_TEAM_FUNCTION void newton_step() {
    const double q = 1 / alpha;
#pragma unroll 1
    for (int k = team.lane; k < num_tasks; k += team.size) {
      root[k] = present(k) ? sqrt(x[k] / target[k]) : 0.0;
      system[k * (num_tasks + 1) + num_tasks] = -root[k] * excess[k];
    }
    team.sync();
    for (int i = 0; i < num_tasks; ++i) {
      double* row = system + i * (num_tasks + 1);
      for (int j = i + team.lane; j < num_tasks; j += team.size) {
        row[j] = root[i] * unit[i * num_tasks + j] * root[j] + (i == j ? q : 0.0);
      }
    }
    solve_by_elimination(team, num_tasks, 0.5 * q, system, excess);
  }

  MTL_TEAM_FUNCTION void advance() {
#pragma unroll 1
    for (int k = team.lane; k < num_tasks; k += team.size) {
      if (!present(k)) continue;
      const double growth = excess[k] / (root[k] * target[k]);
      const bool small = fabs(growth) < 0.1 * fmin(1.0, alpha);
      const bool along_target = small ? root[k] < 1 : growth < 0;
      x[k] *= along_target ? exp(-alpha * log1p(-growth / alpha)) : 1 + growth;
    }
  }

  // x solves the equation up to the residual that is returned.
  MTL_TEAM_FUNCTION double solve() {
    start();
    // Far more than any problem of tasks whose sizes lie less than 20 decades apart has needed.
    for (int count = 0;; ++count) {
      evaluate();
      bool converged;
      const double residual = measure(converged);
      if (converged || count >= 500) return residual;
      newton_step();
      advance();
    }
  }
};

struct AlphaFair {
  double alpha;

  static constexpr int workspace(int num_tasks) { return num_tasks * (2 * num_tasks + 7); }
  // The minimum norm's workspace is the system with the four vectors that follow it.
  static_assert(MinNorm::workspace(64) <= 64 * (64 + 5));

  template <class Team>
  MTL_TEAM_FUNCTION Outcome solve(const Team& team, int num_tasks, const double* gram, double* weights,
                                  double* workspace) const {
    double* system = workspace + num_tasks * num_tasks;
    double* vectors = system + num_tasks * (num_tasks + 1);
    AlphaFairProblem<Team> problem{team,
                                   num_tasks,
                                   gram,
                                   alpha,
                                   workspace,
                                   system,
                                   vectors,
                                   vectors + num_tasks,
                                   vectors + 2 * num_tasks,
                                   vectors + 3 * num_tasks,
                                   vectors + 4 * num_tasks,
                                   vectors + 5 * num_tasks};
    problem.scale_to_unit();
    if (!problem.sum_improves_all()) {
      const double square = problem.shortest_combination(weights);
      if (square <= kStationary * num_tasks) {
        weigh_gradients(problem, weights);
        return {square, kParetoStationary};
      }
    }
    const double residual = problem.solve();
    const double scale = exp((0.5 - alpha / (1 + alpha)) * problem.log_trace);
    for (int k = team.lane; k < num_tasks; k += team.size) weights[k] = problem.x[k] * problem.inverse[k] * scale;
    return {residual, kSolved};
  }

  // From weights of the unit gradients to weights of the gradients, on the simplex.
  template <class Team>
  MTL_TEAM_FUNCTION void weigh_gradients(const AlphaFairProblem<Team>& problem, double* weights) const {
    const Team& team = problem.team;
    double total = 0;
    for (int k = 0; k < problem.num_tasks; ++k) total += weights[k] * problem.inverse[k];
    team.sync();
    for (int k = team.lane; k < problem.num_tasks; k += team.size) weights[k] *= problem.inverse[k] / total;
  }
};

}  // namespace mtl
