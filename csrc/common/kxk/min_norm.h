// The point of minimum norm in the convex hull of K gradients, from their Gram matrix G: Wolfe's active-set method
// (1976). It keeps a corral S of affinely independent gradients whose affine minimum lies inside their hull; each step
// adds the gradient with the smallest product with the current point and drops those that would get negative weight.
//
// The affine minimum over S solves (A + 1 1^T) u = 1 with A = G_SS / tr G, weights u / sum(u).
#pragma once

#include <cmath>

#include "common/kxk/solve.h"
#include "common/kxk/task_subset.h"

namespace mtl {

// The certificate is relative to w^T G w or to this part of the trace, whichever is larger.
constexpr double kCertificateFloor = 1e-6;

template <class Team>
struct MinNormProblem {
  const Team& team;
  const int num_tasks;
  const double* gram;       // [K, K]
  double* weights;          // [K]
  TaskSubset<Team> corral;  // tasks with positive weight
  double* affine;           // [K] affine minimum's weights, in corral order
  double* products;         // [K] A w
  double scale = 1;

  MTL_TEAM_FUNCTION double entry(int i, int j) const { return gram[i * num_tasks + j] * scale; }
  struct BorderedEntry {
    const MinNormProblem& problem;
    MTL_TEAM_FUNCTION double operator()(int i, int j) const { return problem.entry(i, j) + 1; }
  };
  MTL_TEAM_FUNCTION bool present(int k) const { return gram[k * num_tasks + k] > 0; }

  // products = A w and the squared norm w^T A w.
  MTL_TEAM_FUNCTION double evaluate() {
    team.sync();
    for (int k = team.lane; k < num_tasks; k += team.size) {
      double sum = 0;
      for (int c = 0; c < corral.size; ++c) sum += entry(k, corral.tasks[c]) * weights[corral.tasks[c]];
      products[k] = sum;
    }
    team.sync();
    return dot(team, weights, products, num_tasks);
  }

  // The present task with the smallest product; every lane finds the same.
  MTL_TEAM_FUNCTION int best_vertex() const {
    int best = -1;
    for (int k = 0; k < num_tasks; ++k) {
      if (present(k) && (best < 0 || products[k] < products[best])) best = k;
    }
    return best;
  }

  // affine = weights of the affine minimum over the corral.
  MTL_TEAM_FUNCTION void affine_minimum() {
    team.sync();
    for (int c = team.lane; c < corral.size; c += team.size) affine[c] = 1;
    team.sync();
    corral.solve(affine);
    double total = 0;
    for (int c = 0; c < corral.size; ++c) total += affine[c];
    team.sync();
    for (int c = team.lane; c < corral.size; c += team.size) affine[c] /= total;
    team.sync();
  }

  // Moves towards the affine minimum until a weight reaches zero, and drops that task. False: the minimum is inside.
  MTL_TEAM_FUNCTION bool shrink() {
    double step = 1;
    int blocking = -1;
    for (int c = 0; c < corral.size; ++c) {
      if (affine[c] > 0) continue;
      const double weight = weights[corral.tasks[c]];
      const double reach = weight > 0 ? weight / (weight - affine[c]) : 0;
      if (blocking < 0 || reach < step) {
        step = reach;
        blocking = c;
      }
    }
    team.sync();
    for (int c = team.lane; c < corral.size; c += team.size) {
      double& weight = weights[corral.tasks[c]];
      weight = c == blocking ? 0 : fmax(0.0, weight + step * (affine[c] - weight));
    }
    team.sync();
    if (blocking < 0) return false;
    corral.drop(blocking, BorderedEntry{*this});
    return true;
  }

  MTL_TEAM_FUNCTION void start() {
    int shortest = -1;
    double trace = 0;
    for (int k = 0; k < num_tasks; ++k) {
      const double square = gram[k * num_tasks + k];
      trace += square;
      if (square > 0 && (shortest < 0 || square < gram[shortest * num_tasks + shortest])) shortest = k;
    }
    for (int k = team.lane; k < num_tasks; k += team.size) weights[k] = k == shortest ? 1.0 : 0.0;
    if (shortest < 0) return;
    scale = 1 / trace;
    corral.append(shortest, BorderedEntry{*this});
  }

  // Returns the certificate: the duality gap relative to the squared norm.
  MTL_TEAM_FUNCTION double solve() {
    start();
    if (corral.size == 0) return 0;
    double value = evaluate();
    int vertex = best_vertex();
    // Each round adds one task; in practice 2 K rounds suffice, the bound only ends a cycle caused by rounding.
    for (int round = 0; round < 10 * num_tasks; ++round) {
      if (corral.contains(vertex) || value - products[vertex] <= 1e-15) break;
      corral.append(vertex, BorderedEntry{*this});
      do affine_minimum();
      while (shrink());
      const double improved = evaluate();
      vertex = best_vertex();
      if (!(improved < value)) break;
      value = improved;
    }
    value = evaluate();
    return fmax(0.0, value - products[vertex]) / fmax(value, kCertificateFloor);
  }
};

// Weights on the simplex; every finite problem is solved.
struct MinNorm {
  static constexpr int workspace(int num_tasks) { return num_tasks * (num_tasks + 3); }

  template <class Team>
  MTL_TEAM_FUNCTION Outcome solve(const Team& team, int num_tasks, const double* gram, double* weights,
                                  double* workspace) const {
    double* vectors = workspace + num_tasks * num_tasks;
    MinNormProblem<Team> problem{team,
                                 num_tasks,
                                 gram,
                                 weights,
                                 {team, num_tasks, workspace, reinterpret_cast<int*>(vectors + 2 * num_tasks)},
                                 vectors,
                                 vectors + num_tasks};
    return {problem.solve(), kSolved};
  }
};

}  // namespace mtl
