// Items with their scores, best first.
#pragma once

#include <cstdint>

namespace lares {

struct Candidate {
    float score;
    int32_t item;
};

// Ties go to the lower id; `select_best` puts the best `k` first, in any order.
void select_best(Candidate* candidates, int64_t count, int64_t k) noexcept;
void sort_best(Candidate* candidates, int64_t count) noexcept;

}  // namespace lares
