// The point of minimum norm in the convex hull of K gradients, from their Gram matrix.
#pragma once

#include "common/kxk/simplex.h"

namespace mtl {

// The certificate is relative to w^T G w or to this part of the trace, whichever is larger.
constexpr double kCertificateFloor = 1e-6;

// Weights on the simplex; every finite problem is solved. The certificate is the duality gap relative to the squared
// norm.
struct MinNorm {
  static constexpr int workspace(int num_tasks) { return SimplexProblem<OneLane>::workspace(num_tasks); }

  template <class Team>
  MTL_TEAM_FUNCTION Outcome solve(const Team& team, int num_tasks, const double* gram, double* weights,
                                  double* workspace) const {
    auto problem = SimplexProblem<Team>::over(team, num_tasks, gram, weights, workspace);
    problem.start();
    if (problem.num_present == 0) return {0, kSolved};
    problem.minimise();
    const double value = problem.square();
    const double gap = fmax(0.0, value - problem.measure().lowest);
    return {gap / fmax(value, kCertificateFloor * problem.num_present), kSolved};
  }
};

}  // namespace mtl
