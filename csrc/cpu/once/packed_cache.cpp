#include "packed_cache.hpp"

#include <atomic>
#include <cstring>
#include <mutex>
#include <new>
#include <string>

namespace lares {

struct Packed {
    std::string key;
    void* item;
    void (*destroy)(void*) noexcept;
    std::atomic<int> users{1};
};

namespace {

constexpr int kEntries = 8;  // pre-block and core of a few models

struct Cache {
    std::mutex mutex;
    Packed* entries[kEntries] = {};
    int next = 0;

    static Cache& instance() {
        static Cache* cache = new Cache;  // outlives every thread
        return *cache;
    }
};

}  // namespace

Packed* find_packed(const void* key, size_t size) noexcept {
    Cache& cache = Cache::instance();
    std::unique_lock<std::mutex> lock(cache.mutex, std::try_to_lock);
    if (!lock) return nullptr;
    for (Packed* entry : cache.entries)
        if (entry && entry->key.size() == size && std::memcmp(entry->key.data(), key, size) == 0) {
            ++entry->users;
            return entry;
        }
    return nullptr;
}

Packed* keep_packed(const void* key, size_t size, void* item, void (*destroy)(void*) noexcept) {
    Packed* made;
    try {
        made = new Packed{std::string(static_cast<const char*>(key), size), item, destroy};
    } catch (...) {
        destroy(item);
        throw;
    }
    Cache& cache = Cache::instance();
    Packed* before = nullptr;
    {
        std::unique_lock<std::mutex> lock(cache.mutex, std::try_to_lock);
        if (!lock) return made;
        before = cache.entries[cache.next];
        cache.entries[cache.next] = made;
        ++made->users;
        cache.next = (cache.next + 1) % kEntries;
    }
    if (before) give_back_packed(before);
    return made;
}

void* item_of(Packed* packed) noexcept { return packed->item; }

void give_back_packed(Packed* packed) noexcept {
    if (--packed->users) return;
    packed->destroy(packed->item);
    delete packed;
}

}  // namespace lares
