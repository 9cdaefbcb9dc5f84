// The CPU kernels under ThreadSanitizer, in a process of their own: every list operator and solver on eight threads,
// and the same operator from four threads at once, all to the same bits as on one thread.
//
// libtorch is not instrumented, and its pool would look like a race wherever it synchronises. So this file defines
// torch_parallel_for, which the kernels reach through the stable ABI, by threads that the sanitizer sees; torch's own
// operators run on one thread (OMP_NUM_THREADS=1). Tensors outlive the threads that use them: their reference counts
// are torch's.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>
#include <thread>
#include <vector>

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

namespace {
int num_threads = 1;
}

extern "C" AOTITorchError torch_parallel_for(int64_t begin, int64_t end, int64_t grain, ParallelFunc work, void* ctx) {
  const int64_t wanted =
      std::max<int64_t>(1, std::min<int64_t>(num_threads, (end - begin) / std::max<int64_t>(grain, 1)));
  const int64_t share = (end - begin + wanted - 1) / wanted;
  std::vector<std::thread> threads;
  for (int64_t from = begin; from < end; from += share) {
    threads.emplace_back([=] { work(from, std::min(from + share, end), ctx); });
  }
  for (std::thread& thread : threads) thread.join();
  return 0;
}

namespace {

// No operator returns more.
constexpr size_t kMostResults = 3;

// The dispatcher reads the arguments from the front of an array and leaves the results there.
template <class... Arguments>
auto call(const char* op, const Arguments&... arguments) {
  std::array<StableIValue, std::max(sizeof...(Arguments), kMostResults)> stack{
      torch::stable::detail::from(arguments)...};
  STABLE_TORCH_ERROR_CODE_CHECK(
      torch_call_dispatcher((std::string("mtl_ext::") + op).c_str(), "", stack.data(), TORCH_ABI_VERSION));
  return stack;
}

template <class... Arguments>
std::vector<Tensor> list_of(const char* op, const Arguments&... arguments) {
  return torch::stable::detail::to<std::vector<Tensor>>(call(op, arguments...)[0]);
}

template <class... Arguments>
std::vector<Tensor> tensor_of(const char* op, const Arguments&... arguments) {
  return {torch::stable::detail::to<Tensor>(call(op, arguments...)[0])};
}

Tensor filled(std::vector<int64_t> shape, ScalarType dtype, unsigned seed) {
  Tensor values = torch::stable::empty(shape, ScalarType::Float);
  float* data = values.mutable_data_ptr<float>();
  for (int64_t i = 0; i < values.numel(); ++i) {
    seed = seed * 1664525 + 1013904223;
    data[i] = static_cast<float>(static_cast<int>(seed >> 8)) * 0x1p-23f - 1;
  }
  return torch::stable::to(values, dtype);
}

// Rows of parameters of every dtype, longer and shorter than a chunk, one absent.
std::vector<Tensor> lists(int64_t num_rows) {
  std::vector<Tensor> tensors;
  for (int64_t row = 0; row < num_rows; ++row) {
    const unsigned seed = static_cast<unsigned>(100 * row);
    tensors.push_back(filled({7, 30011}, ScalarType::Float, seed));
    tensors.push_back(row == 1 ? torch::stable::empty({0}, ScalarType::Double)
                               : filled({3, 1031}, ScalarType::Double, seed + 1));
    tensors.push_back(filled({70001}, ScalarType::BFloat16, seed + 2));
    tensors.push_back(filled({11, 5}, ScalarType::Half, seed + 3));
  }
  return tensors;
}

void expect_same(const char* op, const std::vector<Tensor>& found, const std::vector<Tensor>& expected) {
  for (size_t i = 0; i < expected.size(); ++i) {
    if (std::memcmp(found[i].data_ptr(), expected[i].data_ptr(), expected[i].numel() * expected[i].element_size())) {
      std::fprintf(stderr, "%s: result %zu depends on the threads\n", op, i);
      std::exit(3);
    }
  }
}

// `run` gives the results of one call.
template <class Run>
void check(const char* op, const Run& run) {
  num_threads = 1;
  const std::vector<Tensor> expected = run();
  num_threads = 8;
  expect_same(op, run(), expected);
  num_threads = 2;
  std::vector<std::vector<Tensor>> found(4);
  std::vector<std::thread> callers;
  for (std::vector<Tensor>& results : found) callers.emplace_back([&] { results = run(); });
  for (std::thread& caller : callers) caller.join();
  for (const std::vector<Tensor>& results : found) expect_same(op, results, expected);
}

// Tensors of the same shapes and dtypes with other values.
std::vector<Tensor> filled_like(const std::vector<Tensor>& tensors, unsigned seed) {
  std::vector<Tensor> others;
  for (const Tensor& tensor : tensors) others.push_back(filled(tensor.sizes().vec(), tensor.scalar_type(), seed++));
  return others;
}

// The solvers on a batch of Gram matrices [batch, K, K]: problems are dealt out to the threads.
void check_solvers(const Tensor& gram) {
  const int64_t num_tasks = gram.size(-1);
  const std::optional<Tensor> none;
  const Tensor order = torch::stable::to(filled({num_tasks, num_tasks - 1}, ScalarType::Float, 1), ScalarType::Long);
  const Tensor values = filled({gram.size(0), num_tasks}, ScalarType::Double, 2);
  const Tensor bounds = filled({gram.size(0), 5, num_tasks}, ScalarType::Double, 3);
  check("min_norm", [&] { return tensor_of("min_norm", gram); });
  check("nash", [&] { return tensor_of("nash", gram); });
  check("fairgrad", [&] { return tensor_of("fairgrad", gram, 2.0); });
  check("cagrad", [&] { return tensor_of("cagrad", gram, 0.4, 1e-4); });
  check("dual_cone", [&] { return tensor_of("dual_cone", gram, bounds); });
  check("imtl_g", [&] { return tensor_of("imtl_g", gram, 1e-4); });
  check("aligned", [&] { return tensor_of("aligned", gram, std::string("min"), 1e-4, none); });
  check("project_simplex", [&] { return tensor_of("project_simplex", values); });
  const Tensor one = torch::stable::select(gram, 0, 0), cosines = filled({num_tasks, num_tasks}, ScalarType::Double, 4);
  check("pcgrad", [&] { return tensor_of("pcgrad", one, order); });
  check("gradvac", [&] { return tensor_of("gradvac", one, order, cosines, 0.01); });
}

}  // namespace

// Arguments: the operators' schemas; or "planted", for a race that has to be found.
int main(int count, char** schemas) {
  if (count == 2 && std::string(schemas[1]) == "planted") {
    int64_t sum = 0;
    num_threads = 2;
    torch::stable::parallel_for(0, 1000, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) sum += i;
    });
    return sum == 0;
  }
  using torch::stable::detail::StableLibrary;
  StableLibrary library(StableLibrary::Kind::FRAGMENT, "mtl_ext", nullptr, __FILE__, __LINE__);
  for (int i = 1; i < count; ++i) library.def(schemas[i]);

  constexpr int64_t kTasks = 3, kParams = 4;
  const std::vector<Tensor> grads = lists(kTasks);
  const std::vector<Tensor> features = lists(1);
  const std::vector<Tensor> no_uniform;
  const Tensor weights = filled({kTasks}, ScalarType::Double, 5),
               rows = filled({kParams, kTasks}, ScalarType::Double, 6);
  const std::optional<Tensor> seed = filled({2}, ScalarType::Long, 7), leak;
  const std::optional<std::vector<int64_t>> whole, groups = std::vector<int64_t>{1, 0, 1, 2};
  check("gram", [&] { return tensor_of("gram", grads, kTasks, whole); });
  check("gram", [&] { return tensor_of("gram", grads, kTasks, groups); });
  check("combine", [&] { return list_of("combine", grads, weights); });
  check("combine", [&] { return list_of("combine", grads, rows); });
  check("combine_", [&] {
    std::vector<Tensor> out = lists(1);
    call("combine_", out, grads, weights, true);
    return out;
  });
  check("graddrop", [&] { return list_of("graddrop", grads, kTasks, seed, no_uniform, leak, false, 1.0); });
  check("graddrop_", [&] {
    std::vector<Tensor> out = lists(1);
    call("graddrop_", out, grads, kTasks, seed, no_uniform, leak, true, 1.0, true);
    return out;
  });
  check("graddrop_features",
        [&] { return list_of("graddrop_features", grads, kTasks, features, seed, no_uniform, leak, false, 1.0); });
  check("saliency_entropy", [&] { return tensor_of("saliency_entropy", grads, kTasks); });
  check("saliency_entropy_map", [&] { return list_of("saliency_entropy_map", grads, kTasks); });
  const std::vector<Tensor> params = lists(1), direction = filled_like(params, 8);
  // Not perturb, which is the same kernel: torch_call_dispatcher pairs results of several types with the wrong types.
  check("perturb_", [&] {
    std::vector<Tensor> plus = lists(1), minus = lists(1);
    call("perturb_", plus, minus, params, direction, 0.3, false);
    return minus;
  });
  const Tensor eps = filled({}, ScalarType::Double, 9);
  check("finite_difference", [&] { return list_of("finite_difference", params, direction, eps); });
  check("finite_difference_", [&] {
    std::vector<Tensor> out = lists(1);
    call("finite_difference_", out, params, direction, eps, true);
    return out;
  });
  check_solvers(torch::stable::pad(tensor_of("gram", grads, kTasks, groups)[0], {0, 0, 0, 0, 0, 61}));
}
