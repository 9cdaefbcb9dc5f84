// IMTL-G: v = pinv(G) sqrt(diag G), weights v / sum(v). Where G has full rank, the combination has equal projections on
// all gradients' directions; else v is the shortest least-squares solution of that.
#pragma once

#include <cfloat>
#include <cmath>

#include "common/kxk/solve.h"
#include "common/kxk/tridiagonal.h"

namespace mtl {

// No weights exist, whether or not the gradients are Pareto-stationary.
constexpr Status kNoSolution = kParetoStationary;

template <class Team>
struct ImtlGProblem {
  const Team& team;
  const int num_tasks;
  const double* gram;  // [K, K]
  double* weights;     // [K]
  TridiagonalEigen<Team> eigen;
  double* residual;  // [K] G v - lengths
  double scale = 0;  // 1 / tr G
  double cut = 0;    // eigenvalues above it are kept

  MTL_TEAM_FUNCTION bool present(int k) const { return gram[k * num_tasks + k] > 0; }
  MTL_TEAM_FUNCTION double length(int k) const { return sqrt(fmax(0.0, gram[k * num_tasks + k] * scale)); }

  // Number of tasks whose gradient is not zero; sets the scale.
  MTL_TEAM_FUNCTION int measure() {
    int count = 0;
    double trace = 0;
    for (int k = 0; k < num_tasks; ++k) {
      count += present(k);
      trace += present(k) ? gram[k * num_tasks + k] : 0;
    }
    scale = count > 0 ? 1 / trace : 0;
    return count;
  }

  // Rows and columns of absent tasks are zero, whatever their rounding.
  MTL_TEAM_FUNCTION void decompose(double tolerance) {
    for (int i = team.lane; i < num_tasks; i += team.size) {
      for (int j = 0; j < num_tasks; ++j) {
        eigen.matrix[i * eigen.stride + j] = present(i) && present(j) ? gram[i * num_tasks + j] * scale : 0;
      }
    }
    eigen.solve();
    for (int i = 0; i < num_tasks; ++i) cut = fmax(cut, eigen.values[i]);
    cut *= tolerance;
  }

  // weights = v. The eigenvectors' coefficients take the place of `product`.
  MTL_TEAM_FUNCTION void solve() {
    double* coefficients = eigen.product;
    for (int i = team.lane; i < num_tasks; i += team.size) {
      const double* vector = eigen.vectors + i * eigen.stride;
      double sum = 0;
      for (int k = 0; k < num_tasks; ++k) sum += vector[k] * length(k);
      coefficients[i] = eigen.values[i] > cut ? sum / eigen.values[i] : 0;
    }
    team.sync();
    for (int k = team.lane; k < num_tasks; k += team.size) {
      double sum = 0;
      for (int i = 0; i < num_tasks; ++i) sum += coefficients[i] * eigen.vectors[i * eigen.stride + k];
      weights[k] = present(k) ? sum : 0;
    }
    team.sync();
  }

  // |P (G v - lengths)| / (lambda_max |v| + |lengths|), P the projection onto the kept eigenvectors.
  MTL_TEAM_FUNCTION double backward_error() {
    for (int i = team.lane; i < num_tasks; i += team.size) {
      double sum = 0;
      for (int k = 0; k < num_tasks; ++k) sum += gram[i * num_tasks + k] * scale * weights[k];
      residual[i] = sum - length(i);
    }
    team.sync();
    double square = 0, largest = 0;
    for (int i = team.lane; i < num_tasks; i += team.size) {
      if (!(eigen.values[i] > cut)) continue;
      const double* vector = eigen.vectors + i * eigen.stride;
      double sum = 0;
      for (int k = 0; k < num_tasks; ++k) sum += vector[k] * residual[k];
      square += sum * sum;
    }
    for (int i = 0; i < num_tasks; ++i) largest = fmax(largest, eigen.values[i]);
    square = team.sum(square);
    return sqrt(square) / (largest * sqrt(dot(team, weights, weights, num_tasks)) + 1);  // the lengths have norm 1
  }

  // weights = v / sum(v). False, and weights 0: the sum vanishes.
  MTL_TEAM_FUNCTION bool normalise(double tolerance) {
    double sum = 0, magnitude = 0;
    for (int k = team.lane; k < num_tasks; k += team.size) {
      sum += weights[k];
      magnitude += fabs(weights[k]);
    }
    sum = team.sum(sum);
    magnitude = team.sum(magnitude);
    const bool exists = fabs(sum) > tolerance * magnitude;
    for (int k = team.lane; k < num_tasks; k += team.size) weights[k] = exists ? weights[k] / sum : 0;
    return exists;
  }
};

// `eps`: machine epsilon of the gradients' dtype, at least that of double.
struct ImtlG {
  double eps;

  static constexpr int workspace(int num_tasks) { return num_tasks + TridiagonalEigen<OneLane>::workspace(num_tasks); }

  template <class Team>
  MTL_TEAM_FUNCTION Outcome solve(const Team& team, int num_tasks, const double* gram, double* weights,
                                  double* workspace) const {
    ImtlGProblem<Team> problem{
        team, num_tasks, gram, weights, TridiagonalEigen<Team>(team, num_tasks, workspace + num_tasks), workspace};
    const int present = problem.measure();
    if (present == 0) return {0, kSolved};  // the weights are 0
    const double tolerance = present * fmax(eps, DBL_EPSILON);
    problem.decompose(tolerance);
    problem.solve();
    const double certificate = problem.backward_error();
    return {certificate, problem.normalise(tolerance) ? kSolved : kNoSolution};
  }
};

}  // namespace mtl
