// Eigen-decomposition of a symmetric matrix by cyclic Jacobi rotations, over a team. A round of a tournament pairs
// every index with another one; the rotations of its pairs are disjoint, so that lanes apply them side by side. Slower
// on one lane than kxk/tridiagonal.h, but small eigenvalues come out with errors relative to themselves: what divides
// by their square root needs that.
#pragma once

#include <cmath>

#include "common/kxk/team.h"

namespace mtl {

template <class Team>
struct SymmetricEigen {
  const Team& team;
  const int size;   // even
  double* matrix;   // [size, size] lower triangle, of trace about 1; its diagonal turns into the eigenvalues
  double* vectors;  // [size, size] rows: the eigenvectors
  double* cosines;  // [size / 2]
  double* sines;    // [size / 2]

  struct Pair {
    int p, q;
  };

  // Pair `index` of a round: the last index stays, the others move around a circle.
  MTL_TEAM_FUNCTION Pair pair(int round, int index) const {
    const int circle = size - 1;
    if (index == 0) return {circle, round};
    const int p = round + index, q = round - index;
    return {p < circle ? p : p - circle, q < 0 ? q + circle : q};
  }

  MTL_TEAM_FUNCTION double& entry(int i, int j) const { return i > j ? matrix[i * size + j] : matrix[j * size + i]; }

  // The rotations that a round's pairs need, applied to their own 2 x 2 blocks. Returns the sum of squares removed.
  MTL_TEAM_FUNCTION double find_rotations(int round) const {
    double removed = 0;
#pragma unroll 1
    for (int index = team.lane; index < size / 2; index += team.size) {
      const auto [p, q] = pair(round, index);
      const double off = entry(p, q);
      double cosine = 1, sine = 0;
      if (fabs(off) > 0x1p-106) {  // the square of the rounding error; its own square does not underflow
        const double half = 0.5 * (entry(q, q) - entry(p, p));
        const double tangent = (half < 0 ? -off : off) / (fabs(half) + sqrt(half * half + off * off));
        cosine = 1 / sqrt(1 + tangent * tangent);
        sine = tangent * cosine;
        entry(p, p) -= tangent * off;
        entry(q, q) += tangent * off;
        removed += off * off;
      }
      entry(p, q) = 0;
      cosines[index] = cosine;
      sines[index] = sine;
    }
    return removed;
  }

  // Rotates the blocks between two pairs from both sides. Pairs `offset` apart on a circle: each block has one lane.
  MTL_TEAM_FUNCTION void rotate_blocks(int round) const {
    const int pairs = size / 2;
    for (int offset = 1; 2 * offset <= pairs; ++offset) {
      const int count = 2 * offset == pairs ? offset : pairs;
      for (int a = team.lane; a < count; a += team.size) {
        const int b = a + offset < pairs ? a + offset : a + offset - pairs;
        const Pair row = pair(round, a), column = pair(round, b);
        double &pp = entry(row.p, column.p), &pq = entry(row.p, column.q);
        double &qp = entry(row.q, column.p), &qq = entry(row.q, column.q);
        const double upper_p = cosines[b] * pp - sines[b] * pq, upper_q = sines[b] * pp + cosines[b] * pq;
        const double lower_p = cosines[b] * qp - sines[b] * qq, lower_q = sines[b] * qp + cosines[b] * qq;
        pp = cosines[a] * upper_p - sines[a] * lower_p;
        qp = sines[a] * upper_p + cosines[a] * lower_p;
        pq = cosines[a] * upper_q - sines[a] * lower_q;
        qq = sines[a] * upper_q + cosines[a] * lower_q;
      }
    }
  }

  MTL_TEAM_FUNCTION void rotate_vectors(int round) const {
    for (int index = 0; index < size / 2; ++index) {
      const double cosine = cosines[index], sine = sines[index];
      const auto [p, q] = pair(round, index);
      for (int k = team.lane; k < size; k += team.size) {
        double &first = vectors[p * size + k], &second = vectors[q * size + k];
        const double rotated = cosine * first - sine * second;
        second = sine * first + cosine * second;
        first = rotated;
      }
    }
  }

  MTL_TEAM_FUNCTION void solve() const {
    for (int i = team.lane; i < size * size; i += team.size) vectors[i] = i % (size + 1) == 0 ? 1.0 : 0.0;
    // Convergence is quadratic: a sweep that removes less than rounding leaves nothing. 10 sweeps are many.
    for (int sweep = 0; sweep < 30; ++sweep) {
      double removed = 0;
      for (int round = 0; round + 1 < size; ++round) {
        team.sync();
        removed += find_rotations(round);
        team.sync();
        rotate_blocks(round);
        rotate_vectors(round);
      }
      if (team.sum(removed) <= 0x1p-112) break;
    }
    team.sync();
  }
};

}  // namespace mtl
