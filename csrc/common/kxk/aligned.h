// Aligned-MTL: weights B p with B = sqrt(sigma) V L^(-1/2) V^T over the eigenpairs of G that count as more than
// rounding. The gradients B J have the Gram matrix sigma times a projector: they are orthogonal and equally long.
#pragma once

#include <cmath>

#include "common/kxk/eigen.h"
#include "common/kxk/solve.h"

namespace mtl {

// What sigma is of the kept eigenvalues: the smallest, the lower median, or the mean.
enum class AlignedScale { kMin, kMedian, kRmse };

template <class Team>
struct AlignedProblem {
  const Team& team;
  const int num_tasks;
  const double* gram;          // [K, K]
  SymmetricEigen<Team> eigen;  // of G over its trace, without the tasks whose gradient is zero
  double* values;              // [size] eigenvalues, 0 where not kept
  double* coefficients;        // [size]
  double trace = 0;
  int num_present = 0;
  double largest = 0;

  MTL_TEAM_FUNCTION bool present(int k) const { return k < num_tasks && gram[k * (num_tasks + 1)] > 0; }

  MTL_TEAM_FUNCTION void measure() {
    for (int k = 0; k < num_tasks; ++k) {
      trace += fmax(0.0, gram[k * (num_tasks + 1)]);
      num_present += present(k) ? 1 : 0;
    }
  }

  // Lower triangle of G over its trace; zeros where there is no gradient.
  MTL_TEAM_FUNCTION void load() {
    const double scale = 0.5 / trace;
    for (int i = 0; i < eigen.size; ++i) {
      for (int j = team.lane; j <= i; j += team.size) {
        eigen.matrix[i * eigen.size + j] =
            present(i) && present(j) ? scale * gram[i * num_tasks + j] + scale * gram[j * num_tasks + i] : 0.0;
      }
    }
    team.sync();
  }

  // |G - V L V^T| / largest + |V V^T - 1|, Frobenius norms, with every eigenvalue. Leaves the kept ones in `values`.
  MTL_TEAM_FUNCTION double decompose(double eps) {
    const int size = eigen.size;
    load();
    eigen.solve();
    for (int i = team.lane; i < size; i += team.size) values[i] = eigen.matrix[i * (size + 1)];
    team.sync();
    for (int i = 0; i < size; ++i) largest = fmax(largest, values[i]);
    load();
    double residual = 0, skew = 0;
    for (int i = 0; i < size; ++i) {
      for (int k = team.lane; k <= i; k += team.size) {
        double rebuilt = 0, unit = 0;
        for (int j = 0; j < size; ++j) {
          const double product = eigen.vectors[j * size + i] * eigen.vectors[j * size + k];
          rebuilt += values[j] * product;
          unit += product;
        }
        const double error = rebuilt - eigen.matrix[i * size + k], tilt = unit - (i == k ? 1.0 : 0.0);
        const double multiplicity = i == k ? 1.0 : 2.0;
        residual += multiplicity * error * error;
        skew += multiplicity * tilt * tilt;
      }
    }
    residual = sqrt(team.sum(residual)) / largest;
    skew = sqrt(team.sum(skew));
    team.sync();
    for (int i = team.lane; i < size; i += team.size) {
      if (!(values[i] > largest * num_present * eps)) values[i] = 0;
    }
    team.sync();
    return residual + skew;
  }

  MTL_TEAM_FUNCTION double scale_of_kept(AlignedScale scale) {
    double smallest = largest, total = 0;
    int count = 0;
    for (int i = 0; i < eigen.size; ++i) {
      if (!(values[i] > 0)) continue;
      smallest = fmin(smallest, values[i]);
      total += values[i];
      ++count;
    }
    if (scale == AlignedScale::kMin) return smallest;
    if (scale == AlignedScale::kRmse) return total / count;
    for (int i = team.lane; i < eigen.size; i += team.size) {
      int rank = 0;
      for (int j = 0; j < eigen.size; ++j) {
        const bool before = values[j] < values[i] || (values[j] == values[i] && j < i);
        rank += values[j] > 0 && before ? 1 : 0;
      }
      if (values[i] > 0 && rank == (count - 1) / 2) coefficients[0] = values[i];
    }
    team.sync();
    const double median = coefficients[0];
    team.sync();
    return median;
  }

  // weights = B weights.
  MTL_TEAM_FUNCTION void balance(double sigma, double* weights) {
    const int size = eigen.size;
#pragma unroll 1
    for (int i = team.lane; i < size; i += team.size) {
      double product = 0;
      for (int k = 0; k < num_tasks; ++k) product += eigen.vectors[i * size + k] * weights[k];
      coefficients[i] = values[i] > 0 ? sqrt(sigma / values[i]) * product : 0.0;
    }
    team.sync();
    for (int k = team.lane; k < num_tasks; k += team.size) {
      double weight = 0;
      for (int i = 0; i < size; ++i) weight += coefficients[i] * eigen.vectors[i * size + k];
      weights[k] = present(k) ? weight : 0.0;
    }
  }
};

struct Aligned {
  AlignedScale scale;
  double eps;
  bool has_preference;  // `weights` starts with p, else p is 1

  static constexpr int workspace(int num_tasks) {
    const int size = num_tasks + num_tasks % 2;
    return size * (2 * size + 3);
  }

  template <class Team>
  MTL_TEAM_FUNCTION Outcome solve(const Team& team, int num_tasks, const double* gram, double* weights,
                                  double* workspace) const {
    const int size = num_tasks + num_tasks % 2;  // with a zero row where it takes one to be even
    double* vectors = workspace + size * size;
    double* rotations = vectors + size * size;
    double* values = rotations + size;
    AlignedProblem<Team> problem{team,   num_tasks,
                                 gram,   {team, size, workspace, vectors, rotations, rotations + size / 2},
                                 values, values + size};
    problem.measure();
    for (int k = team.lane; k < num_tasks; k += team.size) {
      if (problem.trace == 0)
        weights[k] = 0;
      else if (!has_preference)
        weights[k] = 1;
    }
    team.sync();
    if (problem.trace == 0) return {0, kSolved};
    const double certificate = problem.decompose(eps);
    problem.balance(problem.scale_of_kept(scale), weights);
    return {certificate, kSolved};
  }
};

}  // namespace mtl
