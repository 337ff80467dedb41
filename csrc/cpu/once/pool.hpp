// Threads that sleep while there is no work.
#pragma once

#include <condition_variable>
#include <mutex>

namespace lares {

// Threads of our own. They live as long as the process, wait asleep, and take no signals. A caller
// who has done all that is left of its work waits for those who are at it, never for one that has
// not begun, so a thread that the system does not let run holds up nobody.
class Pool {
  public:
    // Runs work(data) on this thread and on up to `threads` - 1 of the pool's; returns when all
    // that began it are done. `work` must not throw, and must return at once when nothing is left
    // to do. Callers at the same time share the pool's threads.
    void run(int threads, void (*work)(void*), void* data);

  private:
    struct Job {
        void (*work)(void*);
        void* data;
        int wanted;       // threads that may still begin it
        int at_work = 0;  // of the pool's
        std::condition_variable left;
        Job* next = nullptr;
    };

    void start_threads(int most);
    void serve();

    std::mutex mutex_;  // of all below, and of the jobs
    std::condition_variable posted_;
    Job* first_ = nullptr;
    int threads_ = 0;
};

// The process's pool; a forked child has one of its own.
Pool& pool();

}  // namespace lares
