// Eigenvalues and eigenvectors of a symmetric matrix: Householder's reduction to tridiagonal form, then implicit QL
// with Wilkinson's shifts (Golub & Van Loan, Matrix Computations, sections 8.3.1 and 8.3.5). Some 9 n^3 operations;
// errors of the order of eps times the largest eigenvalue.
#pragma once

#include <cfloat>
#include <cmath>

#include "common/kxk/team.h"

namespace mtl {

template <class Team>
struct TridiagonalEigen {
  const Team& team;
  const int n;
  const int stride;      // of the rows: odd, so that lanes on different rows meet different banks of shared memory
  double* matrix;        // [n, stride] in; destroyed
  double* vectors;       // [n, stride] out, row i the eigenvector of values[i]
  double* values;        // [n] out, in no order
  double* off_diagonal;  // [n]
  double* factors;       // [n] 2 / v^T v of the reflection that row k holds
  double* product;       // [n]

  static constexpr int workspace(int n) { return 2 * n * (n | 1) + 4 * n; }

  MTL_TEAM_FUNCTION TridiagonalEigen(const Team& team, int n, double* workspace)
      : team(team),
        n(n),
        stride(n | 1),
        matrix(workspace),
        vectors(matrix + n * stride),
        values(vectors + n * stride),
        off_diagonal(values + n),
        factors(off_diagonal + n),
        product(factors + n) {}

  MTL_TEAM_FUNCTION void solve() {
    team.sync();
    for (int k = 0; k + 1 < n; ++k) reflect(k);
    if (team.lane == 0) values[n - 1] = matrix[(n - 1) * stride + n - 1];
    accumulate();
    team.sync();
    int budget = 30 * n;  // shifts; in practice less than 2 n are needed
    for (int first = 0; first < n; ++first) {
      for (int last = end_of_block(first); last > first && budget > 0; last = end_of_block(first), --budget) {
        shift_block(first, last);
      }
    }
  }

  // Row k beyond the diagonal becomes v of the reflection that leaves only its first entry; both sides of the trailing
  // block are reflected.
  MTL_TEAM_FUNCTION void reflect(int k) {
    const int size = n - k - 1;
    double* v = matrix + k * stride + k + 1;
    const double first = v[0], rest = dot(team, v + 1, v + 1, size - 1), norm = sqrt(first * first + rest);
    const bool trivial = rest == 0;  // and then v is not used
    const double head = first + copysign(norm, first), factor = trivial ? 0 : 1 / (norm * (norm + fabs(first)));
    team.sync();
    if (team.lane == 0) {
      values[k] = matrix[k * stride + k];
      off_diagonal[k] = trivial ? first : -copysign(norm, first);
      factors[k] = factor;
      v[0] = head;
    }
    team.sync();
    if (trivial) return;
    for (int i = team.lane; i < size; i += team.size) {
      const double* row = matrix + (k + 1 + i) * stride + k + 1;
      product[i] = factor * row_product(row, v, size);
    }
    team.sync();
    const double half = factor / 2 * dot(team, v, product, size);
    for (int i = team.lane; i < size; i += team.size) product[i] -= half * v[i];
    team.sync();
    for (int i = team.lane; i < size; i += team.size) {
      double* row = matrix + (k + 1 + i) * stride + k + 1;
      const double a = v[i], b = product[i];
      for (int j = 0; j < size; ++j) row[j] -= a * product[j] + b * v[j];
    }
    team.sync();
  }

  // vectors = the transposed product of the reflections; a row meets them without the others.
  MTL_TEAM_FUNCTION void accumulate() {
    for (int i = team.lane; i < n; i += team.size) {
      double* row = vectors + i * stride;
      for (int j = 0; j < n; ++j) row[j] = i == j ? 1 : 0;
      for (int k = i - 1; k >= 0; --k) {
        const double* v = matrix + k * stride;
        const double share = factors[k] * row_product(row + k + 1, v + k + 1, n - k - 1);
        for (int j = k + 1; j < n; ++j) row[j] -= share * v[j];
      }
    }
  }

  // Where the unreduced block that begins at `first` ends.
  MTL_TEAM_FUNCTION int end_of_block(int first) const {
    int last = first;
    while (last + 1 < n && fabs(off_diagonal[last]) > DBL_EPSILON * (fabs(values[last]) + fabs(values[last + 1]))) {
      ++last;
    }
    return last;
  }

  // One implicit QL step on first..last. Every lane computes the same rotations and applies them to its own columns.
  MTL_TEAM_FUNCTION void shift_block(int first, int last) {
    const double corner = off_diagonal[first];
    const double ratio = (values[first + 1] - values[first]) / (2 * corner);
    double g = values[last] - values[first] + corner / (ratio + copysign(sqrt(ratio * ratio + 1), ratio));
    double sine = 1, cosine = 1, moved = 0, above = values[last];
#pragma unroll 1
    for (int i = last - 1; i >= first; --i) {
      const double value = values[i], f = sine * off_diagonal[i], b = cosine * off_diagonal[i];
      const double radius = sqrt(f * f + g * g);
      sine = radius > 0 ? f / radius : 0;
      cosine = radius > 0 ? g / radius : 1;
      g = above - moved;
      const double change = (value - g) * sine + 2 * cosine * b;
      moved = sine * change;
      team.sync();
      if (team.lane == 0) {
        off_diagonal[i + 1] = i + 1 < last ? radius : 0;
        values[i + 1] = g + moved;
      }
      g = cosine * change - b;
      above = value;
      rotate(vectors + i * stride, vectors + (i + 1) * stride, cosine, sine);
    }
    team.sync();
    if (team.lane == 0) {
      values[first] = above - moved;
      off_diagonal[first] = g;
    }
    team.sync();
  }

  MTL_TEAM_FUNCTION void rotate(double* low, double* high, double cosine, double sine) const {
    for (int k = team.lane; k < n; k += team.size) {
      const double a = low[k], b = high[k];
      high[k] = sine * a + cosine * b;
      low[k] = cosine * a - sine * b;
    }
  }
};

}  // namespace mtl
