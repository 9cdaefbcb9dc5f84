// The nearest point of the probability simplex: max(0, values - threshold), with the threshold at which it sums to 1
// (Michelot 1986). The threshold of a set that holds all positive entries is never above the wanted one, so dropping
// the entries that do not exceed it, again and again, ends at exactly the positive ones; in practice after a few
// passes.
//
// Everything is relative to the largest value, which loses nothing: entries 1 or more below it are 0.
#pragma once

#include <cmath>

#include "common/kxk/solve.h"

namespace mtl {

struct SimplexBatch {
  int64_t num_problems;
  int num_tasks;
  const double* values;  // [B, K]
  double* weights;       // [B, K]
  double* certificate;   // [B]
  int32_t* status;       // [B]
};

template <class Team>
MTL_TEAM_FUNCTION double simplex_threshold(const Team& team, const double* values, int num_tasks, double largest) {
  double threshold = -1;
  for (double kept = num_tasks + 1;;) {
    double count = 0, sum = 0;
    for (int k = team.lane; k < num_tasks; k += team.size) {
      const double value = values[k] - largest;
      count += value > threshold ? 1 : 0;
      sum += value > threshold ? value : 0;
    }
    count = team.sum(count);
    sum = team.sum(sum);
    if (!(count < kept)) return threshold;
    threshold = (sum - 1) / count;
    kept = count;
  }
}

// Weights [K] and their certificate: how far they are from summing to 1, or the gap max_k r_k - w^T r with
// r = values - w, which bounds half the squared distance to the answer; whichever is larger.
template <class Team>
MTL_TEAM_FUNCTION double project_simplex(const Team& team, const double* values, int num_tasks, double* weights) {
  double largest = -INFINITY;
  for (int k = team.lane; k < num_tasks; k += team.size) largest = fmax(largest, values[k]);
  largest = team.max(largest);
  const double threshold = simplex_threshold(team, values, num_tasks, largest);
  double total = 0, product = 0, residual = -INFINITY;
  for (int k = team.lane; k < num_tasks; k += team.size) {
    const double value = values[k] - largest, weight = fmax(0.0, value - threshold);
    weights[k] = weight;
    total += weight;
    product += weight > 0 ? weight * (value - weight) : 0;
    residual = fmax(residual, value - weight);
  }
  return fmax(fabs(team.sum(total) - 1), team.max(residual) - team.sum(product));
}

template <class Team>
MTL_TEAM_FUNCTION void project_problem(const Team& team, const SimplexBatch& batch, int64_t problem) {
  const int num_tasks = batch.num_tasks;
  const double* values = batch.values + problem * num_tasks;
  double* weights = batch.weights + problem * num_tasks;
  Outcome outcome{INFINITY, kNonFinite};
  if (all_finite(team, values, num_tasks)) {
    outcome = {project_simplex(team, values, num_tasks, weights), kSolved};
  } else {
    for (int k = team.lane; k < num_tasks; k += team.size) weights[k] = 0;
  }
  if (team.lane == 0) {
    batch.certificate[problem] = outcome.certificate;
    batch.status[problem] = outcome.status;
  }
}

}  // namespace mtl
