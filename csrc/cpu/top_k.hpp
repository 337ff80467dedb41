// The best items of each query while scores pass by.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "simd.hpp"

namespace lares::LARES_ISA {

struct Candidate {
    float score;
    int32_t item;
};

// Of equal scores the lower id comes first.
inline bool comes_before(const Candidate& a, const Candidate& b) {
    return a.score != b.score ? a.score > b.score : a.item < b.item;
}

// What one query has found in one part of the catalogue, which passes by in order of ids.
//
// Everything above `least_` is kept; when as many again as are wanted have come, the best are
// selected and `least_` rises. An item that equals it comes later than those kept, so it is out.
class Candidates {
  public:
    std::vector<Candidate> found;

    void add(const float* scores, int columns, int first, int k) {
        const Vec least = broadcast(least_);
        for (int c = 0; c < columns; c += kLanes) {
            uint32_t above = lanes_above(load(scores + c), least);
            while (above) {
                const int lane = __builtin_ctz(above);
                above &= above - 1;
                found.push_back({scores[c + lane], first + c + lane});
            }
        }
        if (int64_t(found.size()) >= 2 * int64_t(k)) keep(k);
    }

    void keep(int k) {
        if (int64_t(found.size()) <= k) return;
        std::nth_element(found.begin(), found.begin() + (k - 1), found.end(), comes_before);
        found.resize(size_t(k));
        least_ = found[size_t(k) - 1].score;
    }

  private:
    float least_ = -std::numeric_limits<float>::infinity();
};

class BestOfParts {
  public:
    BestOfParts(int queries, int parts, int k)
        : queries_(size_t(queries)), parts_(parts), k_(k), all_(size_t(queries) * size_t(parts)) {}

    Candidates* of_part(int part) { return all_.data() + size_t(part) * queries_; }

    // The best of a query, best first, into k places; -inf and -1 where there are no more.
    void write(int query, float* scores, int64_t* ids) {
        std::vector<Candidate>& best = all_[size_t(query)].found;
        for (int part = 1; part < parts_; ++part) {
            std::vector<Candidate>& more = of_part(part)[query].found;
            best.insert(best.end(), more.begin(), more.end());
            std::vector<Candidate>().swap(more);
        }
        all_[size_t(query)].keep(k_);
        std::sort(best.begin(), best.end(), comes_before);
        for (size_t i = 0; i < size_t(k_); ++i) {
            scores[i] = i < best.size() ? best[i].score : -std::numeric_limits<float>::infinity();
            ids[i] = i < best.size() ? best[i].item : -1;
        }
    }

  private:
    size_t queries_;
    int parts_, k_;
    std::vector<Candidates> all_;
};

}  // namespace lares::LARES_ISA
