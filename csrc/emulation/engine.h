// What the vocabulary of cuemu.h asks of the engine that runs blocks. Every kernel file is compiled with this header
// and none of the engine's own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <source_location>

struct uint3 {
  unsigned x, y, z;
};

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

inline constinit thread_local uint3 threadIdx{}, blockIdx{};
inline constinit thread_local dim3 blockDim{}, gridDim{};
constexpr int warpSize = 32;

namespace cuemu {

// Where the kernel calls a CUDA function: the last argument of each, filled in by the compiler.
using Where = std::source_location;

// Calls kernel(arguments) as every thread of every block; returns when all have ended.
void run_launch(dim3 grid, dim3 block, size_t shared_bytes, void (*kernel)(const void*), const void* arguments,
                const Where& where);

// The running block's dynamic shared memory, aligned to 16 bytes.
unsigned char* dyn_smem();

unsigned lane();

// First lane of the calling lane's segment of `width` lanes.
unsigned segment(int width, const Where& where);

// What __syncthreads_and, _or and _count return.
struct Votes {
  bool all = true;
  bool any = false;
  int count = 0;
};

Votes barrier(bool predicate, const Where& where);
void sync_warp(uint32_t mask, const Where& where);
uint32_t ballot(uint32_t mask, bool predicate, const Where& where);

// Replaces `value`, of `bytes` bytes, by that of lane `source`.
void shuffle(uint32_t mask, void* value, size_t bytes, unsigned source, const Where& where);

}  // namespace cuemu
