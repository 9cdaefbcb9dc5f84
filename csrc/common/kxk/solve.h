// What every K×K solver of signature gram -> (weights, certificate, status) shares. A solver is a struct of its
// options:
//
//   struct Solver {
//     static constexpr int workspace(int num_tasks);  // doubles
//     template <class Team>
//     MTL_TEAM_FUNCTION Outcome solve(const Team&, int num_tasks, const double* gram, double* weights,
//                                     double* workspace) const;
//   };
//
// csrc/cpu/kxk.h and csrc/cuda/kxk.cuh run it over a batch. It sees finite matrices only. A problem may come with a row
// [K] of its own, such as bounds: `weights` holds it when the solver starts.
#pragma once

#include <cmath>
#include <cstdint>

#include "common/kxk/team.h"

namespace mtl {

enum Status : int { kSolved = 0, kParetoStationary = 1, kNonFinite = 2 };

struct Outcome {
  double certificate;
  Status status;
};

template <class Team>
MTL_TEAM_FUNCTION bool all_finite(const Team& team, const double* values, int count) {
  double bad = 0;
  for (int i = team.lane; i < count; i += team.size) bad += std::isfinite(values[i]) ? 0.0 : 1.0;
  return team.sum(bad) == 0;
}

// gram [K, K], and row [K] or null -> weights [K], certificate and status; weights 0 and an infinite certificate where
// the input is not finite.
template <class Solver, class Team>
MTL_TEAM_FUNCTION void solve_problem(const Solver& solver, const Team& team, int num_tasks, const double* gram,
                                     const double* row, double* weights, double* certificate, int32_t* status,
                                     double* workspace) {
  for (int k = team.lane; k < num_tasks; k += team.size) weights[k] = row == nullptr ? 0 : row[k];
  team.sync();
  Outcome outcome{INFINITY, kNonFinite};
  if (all_finite(team, gram, num_tasks * num_tasks) && all_finite(team, weights, num_tasks)) {
    outcome = solver.solve(team, num_tasks, gram, weights, workspace);
  } else {
    for (int k = team.lane; k < num_tasks; k += team.size) weights[k] = 0;
  }
  if (team.lane == 0) {
    *certificate = outcome.certificate;
    *status = outcome.status;
  }
}

}  // namespace mtl
