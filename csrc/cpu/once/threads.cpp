// Threads of a call: OpenMP's, the pool's, or the caller's alone.

#include "threads.hpp"

#include <pthread.h>

#include <atomic>
#include <chrono>
#include <exception>
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif
#if defined(__linux__)
#include <dlfcn.h>
#include <link.h>

#include <cstring>
#include <string>
#include <vector>
#endif

#include "pool.hpp"

namespace lares {
namespace {

// While it lives, this thread's numbers below 1e-38 count as zero. Lanes past the end of a group
// hold leftovers that are never read, but each such number in them would cost as much as a hundred
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

// The process's OpenMP runtime.
struct OpenMp {
    OpenMpParallel parallel = nullptr;  // or null: there is none
    bool binds = false;  // its threads to processors, and ours would be where it put their caller
};

#if defined(__linux__)
OpenMp find_openmp() {
    // Only names are taken while the list of libraries is held: opening one there would wait for a
    // thread that opens one and waits for the list.
    std::vector<std::string> loaded;
    dl_iterate_phdr(
        [](dl_phdr_info* info, size_t, void* to) {
            const char* slash = std::strrchr(info->dlpi_name, '/');
            const char* name = slash ? slash + 1 : info->dlpi_name;
            for (const char* prefix : {"libgomp", "libomp", "libiomp5"})
                if (std::strncmp(name, prefix, std::strlen(prefix)) == 0)
                    static_cast<std::vector<std::string>*>(to)->emplace_back(info->dlpi_name);
            return 0;
        },
        &loaded);
    for (const std::string& name : loaded) {
        void* library = dlopen(name.c_str(), RTLD_NOW | RTLD_NOLOAD);
        if (!library) continue;
        OpenMp found;
        found.parallel = reinterpret_cast<OpenMpParallel>(dlsym(library, "GOMP_parallel"));
        const auto bind = reinterpret_cast<int (*)()>(dlsym(library, "omp_get_proc_bind"));
        found.binds = bind && bind() != 0;
        dlclose(library);  // it stays, for whoever loaded it
        if (found.parallel) return found;
    }
    return {};
}
#else
OpenMp find_openmp() { return {}; }
#endif

// OpenMP's threads do not survive a fork, and it does not notice.
std::atomic<bool> forked{false};
const int fork_watch = pthread_atfork(nullptr, nullptr, [] { forked = true; });

// When to use OpenMP's threads, and when the pool's. OpenMP's spin for milliseconds after each
// loop, torch's or ours, and must all be there before a loop ends. Alone on its processors a
// program is fastest on the threads that spin there anyway. Beside other programs, a thread that
// has spent its share of a processor by spinning is let run milliseconds after it was called, and
// all wait for it; the pool's have slept, and nobody waits for one that has not begun. So the look
// at how late a thread begins decides, for a while.
using Clock = std::chrono::steady_clock;
constexpr auto kLate = std::chrono::milliseconds(1);
constexpr auto kWhile = std::chrono::seconds(1);
std::atomic<Clock::rep> pool_until{Clock::duration::min().count()};

bool openmp_is_late() { return Clock::now().time_since_epoch().count() < pool_until; }

void run_openmp(OpenMpParallel openmp, int threads, void (*work)(void*), void* data) {
    struct Team {
        void (*work)(void*);
        void* data;
        Clock::time_point called;
    } team{work, data, Clock::now()};
    openmp(
        [](void* at) {
            const auto& its = *static_cast<const Team*>(at);
            const auto now = Clock::now();
            if (now - its.called > kLate) pool_until = (now + kWhile).time_since_epoch().count();
            its.work(its.data);
        },
        &team, unsigned(threads), 0);
}

// work(data) on up to `threads` threads; returns when all are done. `work` must not throw, and must
// return at once when nothing is left to do.
void run_team(int threads, void (*work)(void*), void* data) {
    static const OpenMp openmp = find_openmp();
    (void)fork_watch;
    if (threads == 1)
        work(data);
    else if (openmp.parallel && !forked && (openmp.binds || !openmp_is_late()))
        run_openmp(openmp.parallel, threads, work, data);
    else
        pool().run(threads, work, data);
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
