// Packed weights of earlier calls, found again by what they were made of.
#pragma once

#include <cstddef>

namespace lares {

struct Packed;  // an entry, which lives as long as somebody has borrowed it

// The entry of that key (any bytes), borrowed; NULL if there is none, or if another thread is at
// the cache, or was when this process was forked off.
Packed* find_packed(const void* key, size_t size) noexcept;
// Takes `item` over, borrowed; one of the oldest entries gives way. Throws std::bad_alloc, and has
// destroyed the item then.
Packed* keep_packed(const void* key, size_t size, void* item, void (*destroy)(void*) noexcept);
void* item_of(Packed* packed) noexcept;
void give_back_packed(Packed* packed) noexcept;

}  // namespace lares
