// The point of minimum norm in the convex hull of K gradients, from their Gram matrix G: Wolfe's active-set method
// (1976). It keeps a corral S of affinely independent gradients whose affine minimum lies inside their hull; each step
// adds the gradient with the smallest product with the current point and drops those that would get negative weight.
//
// The affine minimum over S solves (A + 1 1^T) u = 1 with A = G_SS / tr G, weights u / sum(u). The Cholesky factor of
// that matrix is kept row by row: a new gradient appends a row, a dropped one recomputes the rows after it. So growing
// to s gradients costs s^3 / 3 operations in all.
#pragma once

#include <cmath>

#include "common/kxk/solve.h"

namespace mtl {

// The certificate is relative to w^T G w or to this part of the trace, whichever is larger.
constexpr double kCertificateFloor = 1e-6;

template <class Team>
struct MinNormProblem {
  const Team& team;
  const int num_tasks;
  const double* gram;  // [K, K]
  double* weights;     // [K]
  double* factor;      // [K, K] lower triangle, rows in corral order
  double* affine;      // [K] affine minimum's weights, in corral order
  double* products;    // [K] A w
  int* corral;         // [K] tasks with positive weight
  int size = 0;
  double scale = 1;

  MTL_TEAM_FUNCTION double entry(int i, int j) const { return gram[i * num_tasks + j] * scale; }
  MTL_TEAM_FUNCTION bool present(int k) const { return gram[k * num_tasks + k] > 0; }

  // products = A w and the squared norm w^T A w.
  MTL_TEAM_FUNCTION double evaluate() {
    team.sync();
    for (int k = team.lane; k < num_tasks; k += team.size) {
      double sum = 0;
      for (int c = 0; c < size; ++c) sum += entry(k, corral[c]) * weights[corral[c]];
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

  MTL_TEAM_FUNCTION bool in_corral(int vertex) const {
    for (int c = 0; c < size; ++c) {
      if (corral[c] == vertex) return true;
    }
    return false;
  }

  // Rows from..size-1 of the Cholesky factor. A pivot lost to rounding (a gradient numerically inside the affine hull
  // of the others) is held at the rounding level: the step stays finite and `solve` notices that it gains nothing.
  MTL_TEAM_FUNCTION void factor_rows(int from) {
    for (int i = from; i < size; ++i) {
      double* row = factor + i * num_tasks;
      for (int j = 0; j <= i; ++j) {
        const double* other = factor + j * num_tasks;
        const double rest = entry(corral[i], corral[j]) + 1 - dot(team, row, other, j);
        team.sync();
        if (team.lane == 0) row[j] = j < i ? rest / other[j] : sqrt(fmax(rest, 1e-16));
        team.sync();
      }
    }
  }

  // affine = weights of the affine minimum over the corral.
  MTL_TEAM_FUNCTION void affine_minimum() {
    for (int i = 0; i < size; ++i) {
      const double rest = 1 - dot(team, factor + i * num_tasks, affine, i);
      team.sync();
      if (team.lane == 0) affine[i] = rest / factor[i * num_tasks + i];
      team.sync();
    }
    for (int i = size - 1; i >= 0; --i) {
      const double* row = factor + i * num_tasks;
      const double value = affine[i] / row[i];
      team.sync();
      for (int j = team.lane; j < i; j += team.size) affine[j] -= row[j] * value;
      if (team.lane == 0) affine[i] = value;
      team.sync();
    }
    double total = 0;
    for (int i = 0; i < size; ++i) total += affine[i];
    team.sync();
    for (int i = team.lane; i < size; i += team.size) affine[i] /= total;
    team.sync();
  }

  // Moves towards the affine minimum until a weight reaches zero, and drops that task. False: the minimum is inside.
  MTL_TEAM_FUNCTION bool shrink() {
    double step = 1;
    int blocking = -1;
    for (int c = 0; c < size; ++c) {
      if (affine[c] > 0) continue;
      const double weight = weights[corral[c]];
      const double reach = weight > 0 ? weight / (weight - affine[c]) : 0;
      if (blocking < 0 || reach < step) {
        step = reach;
        blocking = c;
      }
    }
    team.sync();
    for (int c = team.lane; c < size; c += team.size) {
      double& weight = weights[corral[c]];
      weight = c == blocking ? 0 : fmax(0.0, weight + step * (affine[c] - weight));
    }
    team.sync();
    if (blocking < 0) return false;
    int kept = blocking;
    for (int c = blocking; c < size; ++c) {
      const int task = corral[c];
      team.sync();
      if (c != blocking) {
        if (team.lane == 0) corral[kept] = task;
        ++kept;
      }
      team.sync();
    }
    size = kept;
    factor_rows(blocking);
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
    size = 1;
    if (team.lane == 0) corral[0] = shortest;
    team.sync();
    factor_rows(0);
  }

  // Returns the certificate: the duality gap relative to the squared norm.
  MTL_TEAM_FUNCTION double solve() {
    start();
    if (size == 0) return 0;
    double value = evaluate();
    int vertex = best_vertex();
    // Each round adds one task; in practice 2 K rounds suffice, the bound only ends a cycle caused by rounding.
    for (int round = 0; round < 10 * num_tasks; ++round) {
      if (in_corral(vertex) || value - products[vertex] <= 1e-15) break;
      team.sync();
      if (team.lane == 0) corral[size] = vertex;
      ++size;
      team.sync();
      factor_rows(size - 1);
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
                                 workspace,
                                 vectors,
                                 vectors + num_tasks,
                                 reinterpret_cast<int*>(vectors + 2 * num_tasks)};
    return {problem.solve(), kSolved};
  }
};

}  // namespace mtl
