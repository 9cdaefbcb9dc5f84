// CAGrad's weights: w on the simplex minimises F(w) = g_w^T g_0 + sqrt(phi) |g_w|, sqrt(phi) = c |g_0|, and the
// combined gradient is g_0 + (sqrt(phi) / |g_w|) g_w.
//
// For tau > 0 let w(tau) minimise ½ |g_w|^2 + tau g_w^T g_0 over the simplex. Where |g_w(tau)| = sqrt(phi) tau, both
// functions have the same conditions of optimality. |g_w(tau)| / tau falls with tau; on one support |g_w(tau)|^2 is
// alpha + eta tau^2, which gives the tau where the equation would hold, and a bracket keeps that from cycling.
#pragma once

#include <cmath>

#include "common/kxk/simplex.h"

namespace mtl {

// Where |g_w| is below this part of the gradients' root mean square length, G's own rounding moves the answer by more.
constexpr double kShortLength = 1e-3;

template <class Team>
struct CAGradProblem {
  SimplexProblem<Team> simplex;
  const double c;
  const double eps;
  double mean_length = 0;  // |g_0|, scaled as A is
  double radius = 0;       // sqrt(phi)

  // Everything that does not depend on tau.
  MTL_TEAM_FUNCTION void start() {
    simplex.start();
    const int num_tasks = simplex.num_tasks;
    for (int k = simplex.team.lane; k < num_tasks; k += simplex.team.size) {
      double sum = 0;
      for (int j = 0; j < num_tasks; ++j) sum += simplex.gram[j * num_tasks + k];
      simplex.q[k] = simplex.present(k) ? sum * simplex.scale / num_tasks : 0.0;
    }
    simplex.team.sync();
    double sum = 0;
    for (int k = 0; k < num_tasks; ++k) sum += simplex.q[k];
    mean_length = sqrt(fmax(0.0, sum / num_tasks));
    radius = c * mean_length;
  }

  // The tau where |g_w(tau)| = sqrt(phi) tau if the support stays as it is; infinite where it never holds.
  MTL_TEAM_FUNCTION double predict(double square) {
    const Team& team = simplex.team;
    team.sync();
    for (int i = team.lane; i < simplex.support.size; i += team.size) {
      simplex.step[i] = simplex.q[simplex.support.tasks[i]];
    }
    simplex.direction();
    double eta = 0;
    for (int i = 0; i < simplex.support.size; ++i) eta -= simplex.q[simplex.support.tasks[i]] * simplex.step[i];
    const double alpha = fmax(0.0, square - eta * simplex.tau * simplex.tau);
    return radius * radius > eta ? sqrt(alpha / (radius * radius - eta)) : INFINITY;
  }

  // |g_w| up to this counts as 0.
  MTL_TEAM_FUNCTION double zero_length() const { return sqrt(simplex.num_tasks * eps * simplex.num_present); }

  // Finds w; false: it is Pareto-stationary.
  MTL_TEAM_FUNCTION bool solve() {
    simplex.tau = zero_length() / radius;
    double low = 0, high = INFINITY;
    for (int count = 0; count < 100; ++count) {
      simplex.minimise();
      const double square = simplex.square();
      const bool above = square > radius * radius * simplex.tau * simplex.tau;
      if (count == 0 && !above) return false;
      low = above ? simplex.tau : low;
      high = above ? high : simplex.tau;
      double next = predict(square);
      if (fabs(next - simplex.tau) <= 1e-15 * simplex.tau || high - low <= 1e-15 * low) break;
      if (!(next > low && next < high))
        next = high == INFINITY ? 16 * low : low < high / 16 ? high / 16 : (low + high) / 2;
      simplex.tau = next;
    }
    return true;
  }

  // The gap between F(w) and its lower bound min_k (gradient of F)_k, relative to (1 + c) |g_0|.
  MTL_TEAM_FUNCTION double gap(double length) const {
    const double stretch = radius / length;
    double value = 0, lowest = INFINITY;
    for (int k = 0; k < simplex.num_tasks; ++k) {
      if (!simplex.present(k)) continue;
      const double slope = simplex.q[k] + stretch * simplex.products[k];
      value += simplex.weights[k] * slope;
      lowest = fmin(lowest, slope);
    }
    return fmax(0.0, value - lowest) / ((1 + c) * mean_length);
  }
};

// Task weights of the combined gradient.
struct CAGrad {
  double c;
  double eps;

  static constexpr int workspace(int num_tasks) { return SimplexProblem<OneLane>::workspace(num_tasks); }

  template <class Team>
  MTL_TEAM_FUNCTION Outcome solve(const Team& team, int num_tasks, const double* gram, double* weights,
                                  double* workspace) const {
    CAGradProblem<Team> problem{SimplexProblem<Team>::over(team, num_tasks, gram, weights, workspace), c, eps};
    problem.start();
    const SimplexProblem<Team>& simplex = problem.simplex;
    const int num_present = simplex.num_present;
    if (num_present == 0) return {0, kSolved};
    const bool mean_is_zero = problem.mean_length <= problem.zero_length();
    if (c == 0 || mean_is_zero) {
      const double equal = 1.0 / (c == 0 ? num_tasks : num_present);
      for (int k = team.lane; k < num_tasks; k += team.size) weights[k] = simplex.present(k) ? equal : 0.0;
      const double length = problem.mean_length * num_tasks / num_present;
      return c == 0 ? Outcome{0, kSolved} : Outcome{length * length / num_present, kParetoStationary};
    }
    if (!problem.solve()) return {simplex.square() / num_present, kParetoStationary};
    const double length = sqrt(simplex.square());
    const double certificate = problem.gap(length) * fmin(1.0, length * length / (kShortLength * kShortLength));
    const double stretch = problem.radius / length, equal = 1.0 / num_tasks;
    team.sync();
    for (int k = team.lane; k < num_tasks; k += team.size) {
      weights[k] = simplex.present(k) ? equal + stretch * weights[k] : 0.0;
    }
    return {certificate, kSolved};
  }
};

}  // namespace mtl
