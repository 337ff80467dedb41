// The first loop of a process while another of its threads opens and closes a library again and
// again.
#include <dlfcn.h>

#include <atomic>
#include <thread>

#include "threads.hpp"

int main(int, char** argv) {
    std::atomic<bool> done{false};
    std::atomic<int> opened{0};
    std::thread other([&] {
        while (!done) {
            if (void* library = dlopen(argv[1], RTLD_NOW)) dlclose(library);
            ++opened;
        }
    });
    while (opened < 100) std::this_thread::yield();
    std::atomic<int> pieces{0};
    lares::run_pieces(
        8, 2, [](void* at, int) { ++*static_cast<std::atomic<int>*>(at); }, &pieces);
    done = true;
    other.join();
    return pieces == 8 ? 0 : 1;
}
