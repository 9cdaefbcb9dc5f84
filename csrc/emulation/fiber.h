// Fibers: stacks that one OS thread switches between by itself. Each CUDA thread of a block is one, so that a barrier
// can suspend it in the middle of the kernel.
//
// A sanitizer follows one stack per OS thread and must be told of the others:
//   AddressSanitizer  which stack is left and which is entered, or it takes the new stack's addresses for wild ones.
//   ThreadSanitizer   each fiber is a thread of its own, and a switch orders nothing: only the barriers of the CUDA
//                     model do (release and acquire, in block.h). Then two accesses that no barrier orders are a race,
//                     although the emulator never runs them at the same time.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <memory>

#if !defined(__x86_64__) || defined(CUEMU_UCONTEXT)
#include <ucontext.h>
#define CUEMU_USES_UCONTEXT 1
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
extern "C" {
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);
}
#endif

namespace cuemu {

#if defined(__SANITIZE_THREAD__)
// While one lives, ThreadSanitizer does not look at the calling fiber's accesses: the emulator's bookkeeping is shared
// by all fibers without locks (they never run at once), and only the kernel's own accesses are of interest.
struct Unwatched {
  Unwatched() {
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
  }
  ~Unwatched() {
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
  }
  Unwatched(const Unwatched&) = delete;
  Unwatched& operator=(const Unwatched&) = delete;
};
// What happened before a release of `key` happens before what follows a later acquire of it.
inline void release(void* key) { __tsan_release(key); }
inline void acquire(void* key) { __tsan_acquire(key); }
#else
struct Unwatched {
  Unwatched() {}
};
inline void release(void*) {}
inline void acquire(void*) {}
#endif

constexpr size_t kStackBytes = 256 << 10;
constexpr size_t kGuardBytes = 64 << 10;  // below the stack, at least a page: an overflow faults instead of corrupting

struct Unmap {
  void operator()(char* memory) const { munmap(memory - kGuardBytes, kGuardBytes + kStackBytes); }
};
using Stack = std::unique_ptr<char, Unmap>;

inline Stack make_stack() {
  constexpr int kFlags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  void* memory = mmap(nullptr, kGuardBytes + kStackBytes, PROT_READ | PROT_WRITE, kFlags, -1, 0);
  if (memory == MAP_FAILED || mprotect(memory, kGuardBytes, PROT_NONE) != 0) {
    std::perror("cuemu: no memory for the stacks of a block");
    std::abort();
  }
  return Stack(static_cast<char*>(memory) + kGuardBytes);
}

#if !defined(CUEMU_USES_UCONTEXT)
// Pushes the registers that a call must preserve, leaves the stack pointer in *saved and goes on where the other stack
// was left. swapcontext() would do, but makes a system call each time: ten times slower.
__attribute__((naked, noinline, no_sanitize("thread", "address"))) inline void switch_stack(void** /*saved*/,
                                                                                            void* /*next*/) {
  __asm__(
      "pushq %rbp\n pushq %rbx\n pushq %r12\n pushq %r13\n pushq %r14\n pushq %r15\n"
      "movq %rsp, (%rdi)\n movq %rsi, %rsp\n"
      "popq %r15\n popq %r14\n popq %r13\n popq %r12\n popq %rbx\n popq %rbp\n"
      "ret\n");
}
#endif

// A place to switch to: a fiber, or the OS thread that runs the fibers.
class Context {
 public:
  Context() = default;
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  // Goes on at `next`; returns when somebody switches back. Not instrumented: it is none of the kernel's business.
  __attribute__((no_sanitize("thread"))) void switch_to(Context& next) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&fake_stack_, next.stack_begin_, next.stack_bytes_);
#endif
#if defined(__SANITIZE_THREAD__)
    __tsan_switch_to_fiber(next.tsan_fiber_, __tsan_switch_to_fiber_no_sync);
#endif
#if defined(CUEMU_USES_UCONTEXT)
    swapcontext(&registers_, &next.registers_);
#else
    switch_stack(&stack_pointer_, next.stack_pointer_);
#endif
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fake_stack_, nullptr, nullptr);
#endif
  }

 protected:
#if defined(CUEMU_USES_UCONTEXT)
  ucontext_t registers_;
#else
  void* stack_pointer_ = nullptr;
#endif
#if defined(__SANITIZE_ADDRESS__)
  void* fake_stack_ = nullptr;
  const void* stack_begin_ = nullptr;
  size_t stack_bytes_ = 0;
#endif
#if defined(__SANITIZE_THREAD__)
  void* tsan_fiber_ = nullptr;
#endif
};

// The calling OS thread.
class OsThread : public Context {
 public:
  OsThread() {
#if defined(__SANITIZE_THREAD__)
    tsan_fiber_ = __tsan_get_current_fiber();
#endif
  }

  // What a fiber must call first when it is entered for the first time.
  void left_for_new_fiber() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &stack_begin_, &stack_bytes_);
#endif
  }
};

// A stack whose first instruction is `entry`, which never returns.
class Fiber : public Context {
 public:
  explicit Fiber(void (*entry)()) : stack_(make_stack()) {
#if defined(__SANITIZE_ADDRESS__)
    stack_begin_ = stack_.get();
    stack_bytes_ = kStackBytes;
#endif
#if defined(__SANITIZE_THREAD__)
    tsan_fiber_ = __tsan_create_fiber(0);
#endif
#if defined(CUEMU_USES_UCONTEXT)
    getcontext(&registers_);
    registers_.uc_stack.ss_sp = stack_.get();
    registers_.uc_stack.ss_size = kStackBytes;
    registers_.uc_link = nullptr;
    makecontext(&registers_, entry, 0);
#else
    // As if `entry` had been suspended at its first instruction: six registers and its address; above them an empty
    // slot where a call would have left the return address, which also gives the alignment that a call gives.
    void** top = reinterpret_cast<void**>(stack_.get() + kStackBytes);
    *--top = nullptr;
    *--top = reinterpret_cast<void*>(entry);
    for (int i = 0; i < 6; ++i) *--top = nullptr;
    stack_pointer_ = top;
#endif
  }

#if defined(__SANITIZE_THREAD__)
  ~Fiber() { __tsan_destroy_fiber(tsan_fiber_); }
#endif

 private:
  Stack stack_;
};

}  // namespace cuemu
