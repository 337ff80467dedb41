// An OpenMP runtime, as far as the CPU kernel knows one, whose threads begin as late as
// OPENMP_LATE_US says, and that says how often it was called. OPENMP_BINDS: it binds its threads.
// To be loaded before the harness (tests/kernels/cpu/test_harness.py), under a name such as libgomp.
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

namespace {

struct Calls {
    std::atomic<int> count{0};
    ~Calls() { std::fprintf(stderr, "OpenMP: %d calls\n", count.load()); }
} calls;

}  // namespace

extern "C" {

int omp_get_proc_bind() { return std::getenv("OPENMP_BINDS") ? 1 : 0; }

void GOMP_parallel(void (*work)(void*), void* data, unsigned threads, unsigned) {
    ++calls.count;
    const std::chrono::microseconds late(std::atoi(std::getenv("OPENMP_LATE_US")));
    std::vector<std::thread> others;
    for (unsigned i = 1; i < threads; ++i)
        others.emplace_back([=] {
            std::this_thread::sleep_for(late);
            work(data);
        });
    work(data);
    for (auto& other : others) other.join();
}
}
