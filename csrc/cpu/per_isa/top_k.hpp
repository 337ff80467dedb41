// The best items of each query while scores pass by.
#pragma once

#include "../once/candidates.hpp"
#include "simd.hpp"

namespace lares::LARES_ISA {

// One query's best items in one part of the catalogue, which is read in order of ids.
//
// Everything above `least_` is kept; when as many again as are wanted have come, the best are
// selected and `least_` rises. An item that equals it comes later than those kept, so it is out.
class Candidates {
  public:
    Array<Candidate> found;

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
        select_best(found.begin(), int64_t(found.size()), k);
        found.resize(size_t(k));
        least_ = found[size_t(k) - 1].score;
    }

  private:
    float least_ = -kInfinity;
};

class BestOfParts {
  public:
    BestOfParts(int queries, int parts, int k)
        : queries_(size_t(queries)),
          parts_(parts),
          k_(k),
          all_(new Candidates[size_t(queries) * size_t(parts)]) {}
    ~BestOfParts() { delete[] all_; }
    BestOfParts(const BestOfParts&) = delete;
    BestOfParts& operator=(const BestOfParts&) = delete;

    Candidates* of_part(int part) { return all_ + size_t(part) * queries_; }

    // The best of a query, best first, into k places; -inf and -1 where there are no more.
    void write(int query, float* scores, int64_t* ids) {
        Array<Candidate>& best = all_[size_t(query)].found;
        for (int part = 1; part < parts_; ++part) {
            Array<Candidate>& more = of_part(part)[query].found;
            best.append(more);
            more.clear();
        }
        all_[size_t(query)].keep(k_);
        sort_best(best.begin(), int64_t(best.size()));
        for (size_t i = 0; i < size_t(k_); ++i) {
            scores[i] = i < best.size() ? best[i].score : -kInfinity;
            ids[i] = i < best.size() ? best[i].item : -1;
        }
    }

  private:
    size_t queries_;
    int parts_, k_;
    Candidates* all_;
};

}  // namespace lares::LARES_ISA
