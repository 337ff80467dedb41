// Replacements for the C++ library and for code that is compiled once.
//
// Everything here is in the namespace of the instruction set, and so has a name of its own in each
// of the objects that are linked together. A template or an inline function of the library, or of
// namespace lares, would be compiled here with this set's instructions under a name that all
// objects share; the linker would keep one copy, and processors without the set might run it. So
// headers of the library are included for types and C functions alone, and what `once` offers is
// declared there and defined in its sources. tests/kernels/cpu/test_cpu_objects.py holds all objects to
// this.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>

#include "../once/scratch.hpp"
#include "../once/threads.hpp"

namespace lares::LARES_ISA {

template <int N>
struct Constant {
    static constexpr int value = N;
};

template <int... I>
struct Indices {};

// Indices<0, ..., N - 1>.
template <int N, int... I>
struct IndicesBelow : IndicesBelow<N - 1, N - 1, I...> {};
template <int... I>
struct IndicesBelow<0, I...> {
    using Type = Indices<I...>;
};

template <class T>
constexpr T min(T a, T b) {
    return b < a ? b : a;
}
template <class T>
constexpr T max(T a, T b) {
    return a < b ? b : a;
}

template <class T>
inline void fill(T* from, T* end, T value) {
    for (; from < end; ++from) *from = value;
}

constexpr float kInfinity = __builtin_inff();

// Reached for a choice without code; once/dispatch.cpp refuses such calls.
[[noreturn]] inline void no_such_choice() { __builtin_trap(); }

// Numbers from `first` up to, not including, `end`.
struct Range {
    int first, end;
};

// Numbers of the heap, of a type that may be copied byte by byte.
template <class T>
class Array {
  public:
    Array() = default;
    explicit Array(size_t count) { resize(count); }
    ~Array() { clear(); }
    Array(const Array&) = delete;
    Array& operator=(const Array&) = delete;

    T* begin() { return data_; }
    T* end() { return data_ + size_; }
    const T* begin() const { return data_; }
    const T* end() const { return data_ + size_; }
    size_t size() const { return size_; }
    T& operator[](size_t i) { return data_[i]; }
    const T& operator[](size_t i) const { return data_[i]; }

    void push_back(const T& value) {
        if (size_ == capacity_) grow(size_ + 1);
        data_[size_++] = value;
    }
    void append(const Array& more) {
        if (more.size_ == 0) return;
        if (size_ + more.size_ > capacity_) grow(size_ + more.size_);
        std::memcpy(static_cast<void*>(data_ + size_), more.data_, more.size_ * sizeof(T));
        size_ += more.size_;
    }
    // New elements are zero.
    void resize(size_t count) {
        if (count > capacity_) grow(count);
        if (count > size_)
            std::memset(static_cast<void*>(data_ + size_), 0, (count - size_) * sizeof(T));
        size_ = count;
    }
    // Without its memory, too.
    void clear() noexcept {
        ::operator delete(data_);
        data_ = nullptr;
        size_ = capacity_ = 0;
    }

  private:
    void grow(size_t least) {
        const size_t wanted = least < 2 * capacity_ ? 2 * capacity_ : least;
        T* moved = static_cast<T*>(::operator new(wanted * sizeof(T)));
        if (size_) std::memcpy(static_cast<void*>(moved), data_, size_ * sizeof(T));
        ::operator delete(data_);
        data_ = moved;
        capacity_ = wanted;
    }

    T* data_ = nullptr;
    size_t size_ = 0, capacity_ = 0;
};

// Borrowed scratch memory, carved into arrays.
class Arena {
  public:
    Arena() : scratch_(borrow_scratch()) {}
    ~Arena() { give_back_scratch(scratch_); }
    Arena(const Arena&) = delete;
    Arena& operator=(const Arena&) = delete;

    // Returns body(), which takes arrays from here. It runs twice: the first time they are only
    // counted, and null; the second time they lie in as much memory as was counted. What an earlier
    // carve() gave is gone.
    template <class Body>
    auto carve(const Body& body) {
        memory_ = nullptr;
        taken_ = 0;
        body();
        size_ = taken_;
        memory_ = scratch_->reserve(max(size_, kAlignment));
        taken_ = 0;
        return body();
    }
    // True in the first pass, which only counts: there is no memory to write to yet.
    bool counts() const { return !memory_; }

    template <class T>
    T* take(size_t count) {
        const size_t at = taken_;
        taken_ += (count * sizeof(T) + kAlignment - 1) / kAlignment * kAlignment;
        if (counts()) return nullptr;
        if (taken_ > size_) __builtin_trap();  // the body takes more than it did the first time
        return reinterpret_cast<T*>(memory_ + at);
    }
    template <class T>
    T* take_zeros(size_t count) {
        T* at = take<T>(count);
        if (at) std::memset(static_cast<void*>(at), 0, count * sizeof(T));
        return at;
    }

  private:
    Scratch* scratch_;
    char* memory_ = nullptr;
    size_t size_ = 0, taken_ = 0;
};

// body(piece) for pieces 0 .. count - 1 on up to `threads` threads; see once/threads.hpp.
template <class Body>
void run_pieces(int count, int threads, const Body& body) {
    lares::run_pieces(
        count, threads, [](void* data, int piece) { (*static_cast<const Body*>(data))(piece); },
        const_cast<Body*>(&body));
}

}  // namespace lares::LARES_ISA
