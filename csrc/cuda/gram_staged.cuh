// Partial Gram sums of up to 64 tasks: columns pass through shared memory, threads keep 4 x 4 tiles of pairs.
#pragma once

#include <algorithm>

#include "cuda/gram_sums.cuh"
#include "cuda/reduce.cuh"

namespace mtl {

constexpr int kStagedTasks = 64;
constexpr int kStagedThreads = 256;
constexpr int kTileRows = 4;
constexpr int kTilePairs = kTileRows * kTileRows;
// 128-bit loads of a thread that bring in one chunk.
constexpr int kFetches = 4;

// How a block divides its work. Rows i, i + R, i + 2 R, i + 3 R (R row groups, 4 R >= K) form group i, and every two
// groups a tile of 4 x 4 pairs. A tile belongs to `lanes` threads that share the chunk's columns. Neighbouring threads
// have neighbouring tiles: they read the same columns of rows i and i + 1, which an odd stride puts into different
// banks.
struct Staging {
  int num_tasks;
  int row_groups;
  int tiles;
  int lanes;
  int threads;
  int row_vectors;     // 128-bit loads per row and chunk; kFetches * threads cover all 4 R rows
  int stride;          // of a row in shared memory, in 16-byte pieces of Wide
  int chunks_per_run;  // for PairSums
  int shared_bytes;

  template <class T>
  static Staging plan(int num_tasks) {
    Staging s;
    s.num_tasks = num_tasks;
    s.row_groups = (num_tasks + kTileRows - 1) / kTileRows;
    s.tiles = pair_count(s.row_groups);
    s.lanes = std::max(1, kStagedThreads / s.tiles);
    s.threads = (s.lanes * s.tiles + kWarpSize - 1) / kWarpSize * kWarpSize;
    s.row_vectors = kFetches * s.threads / (kTileRows * s.row_groups) / s.lanes * s.lanes;
    const int row_pieces = s.row_vectors * static_cast<int>(sizeof(Wide<T>) / sizeof(T));
    s.stride = row_pieces | 1;
    s.chunks_per_run = std::max(1, kRunColumns / (row_pieces / s.lanes * kVector<Wide<T>>));
    const int stage_bytes = kTileRows * s.row_groups * s.stride * 16;
    s.shared_bytes = std::max(stage_bytes, kTilePairs * s.tiles * s.lanes * static_cast<int>(sizeof(double)));
    return s;
  }
};

// Reads the thread's share of a vectorised chunk into registers.
template <class T>
__device__ __forceinline__ void fetch(const TensorTable& table, const Staging& s, const Chunk& chunk, uint4* fetched) {
#pragma unroll
  for (int n = 0; n < kFetches; ++n) {
    const int index = n * s.threads + static_cast<int>(threadIdx.x);
    const int row = index / s.row_vectors;
    const T* source = row < s.num_tasks ? table.row<const T>(chunk.param, row) : nullptr;
    const int64_t column = chunk.begin + (index - row * s.row_vectors) * kVector<T>;
    fetched[n] = source ? *reinterpret_cast<const uint4*>(source + column) : uint4{};
  }
}

// Puts them into shared memory, widened. Rows beyond the last task are zero.
template <class T>
__device__ __forceinline__ void stage_fetched(const Staging& s, const uint4* fetched, uint4* stage) {
  constexpr int kPieces = sizeof(Wide<T>) / sizeof(T);
#pragma unroll
  for (int n = 0; n < kFetches; ++n) {
    const int index = n * s.threads + static_cast<int>(threadIdx.x);
    const int row = index / s.row_vectors;
    if (row >= kTileRows * s.row_groups) break;
    Wide<T> values[kVector<T>];
    unpack<T>(fetched[n], values);
#pragma unroll
    for (int piece = 0; piece < kPieces; ++piece) {
      stage[row * s.stride + (index - row * s.row_vectors) * kPieces + piece] =
          pack<Wide<T>>(values + piece * kVector<Wide<T>>);
    }
  }
}

// The same for a chunk that cannot be read in vectors: element by element, zeros up to a whole piece.
template <class T>
__device__ __forceinline__ void stage_elements(const TensorTable& table, const Staging& s, const Chunk& chunk,
                                               Wide<T>* stage) {
  constexpr int kPiece = kVector<Wide<T>>;
  const int columns = (chunk.columns + kPiece - 1) / kPiece * kPiece;
  const int count = kTileRows * s.row_groups * columns;
#pragma unroll 4
  for (int index = threadIdx.x; index < count; index += s.threads) {
    const int row = index / columns;
    const int column = index - row * columns;
    const T* source = row < s.num_tasks && column < chunk.columns ? table.row<const T>(chunk.param, row) : nullptr;
    stage[row * s.stride * kPiece + column] = source ? widen(source[chunk.begin + column]) : Wide<T>(0);
  }
}

// run[4 r + c] += row r of group i times row c of group j, over the thread's share of the staged columns.
template <class W>
__device__ __forceinline__ void add_tile(const Staging& s, const uint4* stage, int i, int j, int lane, int pieces,
                                         W* run) {
  constexpr int kPiece = kVector<W>;
#pragma unroll 1
  for (int piece = lane; piece < pieces; piece += s.lanes) {
    W a[kTileRows][kPiece];
    W b[kTileRows][kPiece];
#pragma unroll
    for (int r = 0; r < kTileRows; ++r) {
      unpack<W>(stage[(i + r * s.row_groups) * s.stride + piece], a[r]);
      unpack<W>(stage[(j + r * s.row_groups) * s.stride + piece], b[r]);
    }
#pragma unroll
    for (int v = 0; v < kPiece; ++v) {
#pragma unroll
      for (int p = 0; p < kTilePairs; ++p) run[p] += a[p / kTileRows][v] * b[p % kTileRows][v];
    }
  }
}

// Adds the lanes' sums of every pair in order and writes the block's row of partials.
template <class W>
__device__ __forceinline__ void write_tile_sums(const Staging& s, const PairSums<W, kTilePairs>& sums, double* shared,
                                                double* partials) {
  const int owners = s.tiles * s.lanes;
  const int thread = threadIdx.x;
  if (thread < owners) {
#pragma unroll
    for (int p = 0; p < kTilePairs; ++p) shared[p * owners + thread] = sums.total(p);
  }
  __syncthreads();
  for (int entry = thread; entry < s.num_tasks * s.num_tasks; entry += s.threads) {
    const int row = entry / s.num_tasks;
    const int column = entry - row * s.num_tasks;
    if (row > column) continue;
    // Tiles are those of groups i <= j: of the pair, `first` is the task in the smaller group.
    const bool in_order = row % s.row_groups <= column % s.row_groups;
    const int first = in_order ? row : column;
    const int second = in_order ? column : row;
    const int tile = pair_index(first % s.row_groups, second % s.row_groups);
    const int slot = first / s.row_groups * kTileRows + second / s.row_groups;
    double total = 0;
    for (int lane = 0; lane < s.lanes; ++lane) total += shared[slot * owners + lane * s.tiles + tile];
    partials[pair_index(row, column)] = total;
  }
}

// partials [rows, K (K + 1) / 2]. Grid: blocks of s.threads, each taking chunks_per_block chunks of s.row_vectors
// vectors. Shared memory: Wide [4 R][stride], in the end double [16][tiles * lanes]. The next chunk is on its way into
// registers while the current one is multiplied.
template <class T>
__global__ void __launch_bounds__(kStagedThreads)
    gram_staged_kernel(MTL_GRID_CONSTANT(TensorTable) table, Staging s, int chunks_per_block, double* partials) {
  using W = Wide<T>;
  MTL_DYN_SHARED(raw);
  uint4* stage = reinterpret_cast<uint4*>(raw);
  const int lane = static_cast<int>(threadIdx.x) / s.tiles;
  const int tile = static_cast<int>(threadIdx.x) % s.tiles;
  int j = 0;
  while (pair_count(j + 1) <= tile) ++j;
  const int i = tile - pair_count(j);

  PairSums<W, kTilePairs> sums;
  uint4 fetched[kFetches];
  ChunkWalk walk(table, blockIdx.x * chunks_per_block, chunks_per_block);
  Chunk chunk = walk.current();
  if (chunk.vectorised) fetch<T>(table, s, chunk, fetched);
#pragma unroll 1
  while (!walk.done()) {
    if (chunk.vectorised) {
      stage_fetched<T>(s, fetched, stage);
    } else {
      stage_elements<T>(table, s, chunk, reinterpret_cast<W*>(raw));
    }
    __syncthreads();  // the chunk is staged
    const int pieces = (chunk.columns + kVector<W> - 1) / kVector<W>;
    walk.advance();
    if (!walk.done()) {
      chunk = walk.current();
      if (chunk.vectorised) fetch<T>(table, s, chunk, fetched);
    }
    if (lane < s.lanes) add_tile<W>(s, stage, i, j, lane, pieces, sums.run);
    sums.end_chunk(s.chunks_per_run);
    __syncthreads();  // nobody reads it any more
  }
  write_tile_sums(s, sums, reinterpret_cast<double*>(raw), block_partials(table, chunks_per_block, partials));
}

}  // namespace mtl
