// Where the threads of a call come from.

#include "threads.hpp"

#include <pthread.h>

#include <atomic>
#include <exception>
#include <thread>
#include <vector>
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif
#if defined(__linux__)
#include <dlfcn.h>
#include <link.h>

#include <cstring>
#endif

namespace lares {
namespace {

// While it lives, this thread's numbers below 1e-38 count as zero. Lanes past the end of a group
// hold leftovers that nobody reads, but each such number in them would cost as much as a hundred
// others.
class FlushTinyNumbers {
  public:
#if defined(__x86_64__)
    FlushTinyNumbers() : before_(_mm_getcsr()) {
        _mm_setcsr(before_ | kFlushResults | kFlushInputs);
    }
    ~FlushTinyNumbers() { _mm_setcsr(before_); }

  private:
    static constexpr unsigned kFlushResults = 0x8000, kFlushInputs = 0x0040;
    unsigned before_;
#elif defined(__aarch64__)
    FlushTinyNumbers() {
        asm volatile("mrs %0, fpcr" : "=r"(before_));
        asm volatile("msr fpcr, %0" ::"r"(before_ | kFlush));
    }
    ~FlushTinyNumbers() { asm volatile("msr fpcr, %0" ::"r"(before_)); }

  private:
    static constexpr uint64_t kFlush = uint64_t(1) << 24;
    uint64_t before_;
#else
    FlushTinyNumbers() {}
#endif
};

// Runs `work(data)` on `threads` threads and returns when all have. GNU's and LLVM's OpenMP both
// have it under this name.
using OpenMpParallel = void (*)(void (*work)(void*), void* data, unsigned threads, unsigned flags);

#if defined(__linux__)
OpenMpParallel find_openmp() {
    void* found = nullptr;
    dl_iterate_phdr(
        [](dl_phdr_info* info, size_t, void* to) {
            const char* slash = std::strrchr(info->dlpi_name, '/');
            const char* name = slash ? slash + 1 : info->dlpi_name;
            bool openmp = false;
            for (const char* prefix : {"libgomp", "libomp", "libiomp5"})
                openmp = openmp || std::strncmp(name, prefix, std::strlen(prefix)) == 0;
            if (!openmp) return 0;
            void* library = dlopen(info->dlpi_name, RTLD_NOW | RTLD_NOLOAD);
            if (!library) return 0;
            *static_cast<void**>(to) = dlsym(library, "GOMP_parallel");
            dlclose(library);  // it stays, for whoever loaded it
            return *static_cast<void**>(to) ? 1 : 0;
        },
        &found);
    return reinterpret_cast<OpenMpParallel>(found);
}
#else
OpenMpParallel find_openmp() { return nullptr; }
#endif

// OpenMP's threads do not survive a fork, and it does not notice.
std::atomic<bool> forked{false};
const int fork_watch = pthread_atfork(nullptr, nullptr, [] { forked = true; });

void run_own(int threads, void (*work)(void*), void* data) {
    std::vector<std::thread> helpers;
    try {
        for (int i = 1; i < threads; ++i) helpers.emplace_back(work, data);
    } catch (const std::exception&) {
        // No more threads to be had: those there are do the work.
    }
    work(data);
    for (auto& helper : helpers) helper.join();
}

// work(data) on up to `threads` threads; returns when all are done. `work` must not throw.
void run_team(int threads, void (*work)(void*), void* data) {
    static const OpenMpParallel openmp = find_openmp();
    (void)fork_watch;
    if (threads == 1)
        work(data);
    else if (openmp && !forked)
        openmp(work, data, unsigned(threads), 0);
    else
        run_own(threads, work, data);
}

}  // namespace

int threads_for(int64_t most, double operations) {
    constexpr double kOperationsPerThread = 2e7;
    const double wanted = operations / kOperationsPerThread;
    if (most < 1) most = 1;
    return wanted < double(most) ? 1 + int(wanted) : int(most);
}

void run_pieces(int count, int threads, void (*piece)(void* data, int number), void* data) {
    if (threads > count) threads = count;
    std::atomic<int> next{0};
    std::exception_ptr error;
    std::atomic<bool> failed{false};
    auto work = [&] {
        const FlushTinyNumbers flush;
        try {
            for (int number; !failed && (number = next++) < count;) piece(data, number);
        } catch (...) {
            if (!failed.exchange(true)) error = std::current_exception();
        }
    };
    run_team(threads, [](void* team) { (*static_cast<decltype(work)*>(team))(); }, &work);
    if (error) std::rethrow_exception(error);
}

}  // namespace lares
