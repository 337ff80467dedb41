// Where the threads of a call come from.

#include "threads.hpp"

#include <pthread.h>

#include <atomic>
#include <thread>
#include <vector>
#if defined(__linux__)
#include <dlfcn.h>
#include <link.h>

#include <cstring>
#endif

namespace lares {
namespace {

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

}  // namespace

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

}  // namespace lares
