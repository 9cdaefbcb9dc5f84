// The minimum of ½ w^T A w + tau q^T w over the simplex, A = G scaled to a mean diagonal of 1, by an active-set method
// that starts from any point: the tasks of positive weight (`support`) have equal gradients (A w + tau q)_k, the others
// should have none below. Each round adds the task with the smallest gradient and takes the step to the minimum over
// the support's affine hull as far as the weights stay positive; a task whose weight arrives at 0 leaves.
//
// The step solves with A + 1 1^T, which has a ridge of rounding size on its diagonal, and starts from measured
// gradients, so that repeating it corrects the ridge and rounding.
#pragma once

#include <cmath>

#include "common/kxk/solve.h"
#include "common/kxk/task_subset.h"

namespace mtl {

constexpr double kSimplexRidge = 1e-14;
// Differences of gradients of this size, relative to the largest, are rounding.
constexpr double kSimplexRounding = 4e-15;

template <class Team>
struct SimplexProblem {
  const Team& team;
  const int num_tasks;
  const double* gram;  // [K, K]
  double* weights;     // [K]
  TaskSubset<Team> support;
  double* q;         // [K]
  double* products;  // [K] A w
  double* step;      // [K] in the support's order
  double* ones;      // [K] in the support's order: (A + 1 1^T)^-1 1
  double scale = 1;
  double ridge = kSimplexRidge;
  double tau = 0;
  int num_present = 0;

  static constexpr int workspace(int num_tasks) { return num_tasks * (num_tasks + 5); }

  MTL_TEAM_FUNCTION static SimplexProblem over(const Team& team, int num_tasks, const double* gram, double* weights,
                                               double* workspace) {
    double* vectors = workspace + num_tasks * num_tasks;
    int* tasks = reinterpret_cast<int*>(vectors + 4 * num_tasks);
    return {team,
            num_tasks,
            gram,
            weights,
            {team, num_tasks, workspace, tasks},
            vectors,
            vectors + num_tasks,
            vectors + 2 * num_tasks,
            vectors + 3 * num_tasks};
  }

  MTL_TEAM_FUNCTION bool present(int k) const { return gram[k * num_tasks + k] > 0; }
  MTL_TEAM_FUNCTION double gradient(int k) const { return products[k] + tau * q[k]; }

  struct Entry {
    const SimplexProblem& problem;
    MTL_TEAM_FUNCTION double operator()(int i, int j) const {
      return problem.gram[i * problem.num_tasks + j] * problem.scale + (i == j ? 1 + problem.ridge : 1.0);
    }
  };

  // Scales A and starts at the shortest gradient, with q = 0; num_present stays 0 where all gradients are zero.
  MTL_TEAM_FUNCTION void start() {
    int shortest = -1;
    double trace = 0;
    for (int k = 0; k < num_tasks; ++k) {
      if (!present(k)) continue;
      ++num_present;
      trace += gram[k * num_tasks + k];
      if (shortest < 0 || gram[k * num_tasks + k] < gram[shortest * num_tasks + shortest]) shortest = k;
    }
    for (int k = team.lane; k < num_tasks; k += team.size) {
      weights[k] = k == shortest ? 1.0 : 0.0;
      q[k] = 0;
    }
    team.sync();
    if (num_present == 0) return;
    scale = num_present / trace;
    add(shortest);
  }

  MTL_TEAM_FUNCTION void evaluate() {
    team.sync();
    for (int k = team.lane; k < num_tasks; k += team.size) products[k] = 0;
    for (int c = 0; c < support.size; ++c) {
      const int task = support.tasks[c];
      const double weight = weights[task] * scale;
      const double* row = gram + task * num_tasks;
      for (int k = team.lane; k < num_tasks; k += team.size) products[k] += row[k] * weight;
    }
    team.sync();
  }

  // A pivot below the ridge shows that G has a negative eigenvalue of that size: the ridge grows until it makes up for
  // it.
  MTL_TEAM_FUNCTION void add(int task) {
    support.append(task, Entry{*this});
    while (support.last_pivot_below(ridge / 2) && ridge < 1) {
      ridge *= 16;
      support.factor_rows(0, Entry{*this});
    }
  }

  // step, a linear function over the support -> where it leads within the affine hull: the minimum of
  // ½ d^T A d + step^T d over 1^T d = 0.
  MTL_TEAM_FUNCTION void direction() {
    team.sync();
    for (int c = team.lane; c < support.size; c += team.size) ones[c] = 1;
    team.sync();
    support.solve(ones);
    support.solve(step);
    double sum = 0, total = 0;
    for (int c = 0; c < support.size; ++c) {
      sum += step[c];
      total += ones[c];
    }
    team.sync();
    for (int c = team.lane; c < support.size; c += team.size) step[c] = sum / total * ones[c] - step[c];
    team.sync();
  }

  // Moves towards the minimum over the support's affine hull until a weight arrives at 0, and drops that task. False:
  // none does.
  MTL_TEAM_FUNCTION bool advance() {
    const double level = gradient(support.tasks[0]);
    team.sync();
    for (int c = team.lane; c < support.size; c += team.size) step[c] = gradient(support.tasks[c]) - level;
    direction();
    double reach = 1;
    int blocking = -1;
    for (int c = 0; c < support.size; ++c) {
      const double distance = step[c] < 0 ? weights[support.tasks[c]] / -step[c] : INFINITY;
      if (distance <= reach) {
        reach = distance;
        blocking = c;
      }
    }
    team.sync();
    for (int c = team.lane; c < support.size; c += team.size) {
      double& weight = weights[support.tasks[c]];
      weight = c == blocking ? 0.0 : fmax(0.0, weight + reach * step[c]);
    }
    team.sync();
    if (blocking >= 0) support.drop(blocking, Entry{*this});
    evaluate();
    return blocking >= 0;
  }

  MTL_TEAM_FUNCTION double square() const { return fmax(0.0, dot(team, weights, products, num_tasks)); }

  struct Spread {
    double size = 0;        // the largest |gradient|
    double difference = 0;  // within the support
    double lowest = INFINITY;
    int entering = -1;  // outside the support and below it, -1: none
  };

  MTL_TEAM_FUNCTION Spread measure() const {
    Spread spread;
    double least = INFINITY, most = -INFINITY;
    for (int c = 0; c < support.size; ++c) {
      least = fmin(least, gradient(support.tasks[c]));
      most = fmax(most, gradient(support.tasks[c]));
    }
    spread.difference = most - least;
    spread.lowest = least;
    int lowest = -1;
    for (int k = 0; k < num_tasks; ++k) {
      if (!present(k)) continue;
      spread.size = fmax(spread.size, fabs(products[k]) + fabs(tau * q[k]));
      if (gradient(k) < spread.lowest) {
        spread.lowest = gradient(k);
        lowest = k;
      }
    }
    if (lowest >= 0 && spread.lowest < least - kSimplexRounding * spread.size && !support.contains(lowest)) {
      spread.entering = lowest;
    }
    return spread;
  }

  // From the present weights, whose support is the list.
  MTL_TEAM_FUNCTION void minimise() {
    evaluate();
    double left = INFINITY;
    // Each round adds one task or corrects rounding; in practice 2 K rounds suffice, the bound only ends a cycle.
    for (int round = 0; round < 10 * num_tasks; ++round) {
      while (advance()) {
      }
      const Spread spread = measure();
      if (spread.entering >= 0) {
        add(spread.entering);
        left = INFINITY;
        continue;
      }
      if (spread.difference <= kSimplexRounding * spread.size || spread.difference > left / 2) break;
      left = spread.difference;
    }
  }
};

}  // namespace mtl
