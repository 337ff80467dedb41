#include "candidates.hpp"

#include <algorithm>

namespace lares {
namespace {

bool comes_before(const Candidate& a, const Candidate& b) {
    return a.score != b.score ? a.score > b.score : a.item < b.item;
}

}  // namespace

void select_best(Candidate* candidates, int64_t count, int64_t k) noexcept {
    std::nth_element(candidates, candidates + (k - 1), candidates + count, comes_before);
}

void sort_best(Candidate* candidates, int64_t count) noexcept {
    std::sort(candidates, candidates + count, comes_before);
}

}  // namespace lares
