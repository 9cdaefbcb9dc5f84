// K×K solvers are templates over a team of lanes that run the same code on one problem: one lane on the CPU, one warp
// on CUDA. Every lane calls every function; loops over tasks start at `lane` and step by `size`; `sum` adds a value of
// each lane and gives the total to all, `max` likewise; `sync` makes what the lanes wrote to the workspace visible to
// each other. Workspaces come from the caller (dynamic shared memory on CUDA): arrays indexed by a run-time K would
// land on the stack.
#pragma once

#if defined(__CUDACC__)
#define MTL_TEAM_FUNCTION __device__ inline
#else
#define MTL_TEAM_FUNCTION inline
#endif

namespace mtl {

struct OneLane {
  static constexpr int lane = 0;
  static constexpr int size = 1;
  void sync() const {}
  double sum(double value) const { return value; }
  double max(double value) const { return value; }
};

// By one lane, four sums side by side: one would wait for every addition.
MTL_TEAM_FUNCTION double row_product(const double* a, const double* b, int count) {
  double sums[4] = {0, 0, 0, 0};
  int i = 0;
  for (; i + 4 <= count; i += 4) {
    for (int part = 0; part < 4; ++part) sums[part] += a[i + part] * b[i + part];
  }
  for (; i < count; ++i) sums[0] += a[i] * b[i];
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

template <class Team>
MTL_TEAM_FUNCTION double dot(const Team& team, const double* a, const double* b, int n) {
  if constexpr (Team::size == 1) return row_product(a, b, n);
  double partial = 0;
  for (int i = team.lane; i < n; i += team.size) partial += a[i] * b[i];
  return team.sum(partial);
}

}  // namespace mtl
