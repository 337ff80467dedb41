// The rows of a tile's sequences: their addresses, their groups, and which of them still run.
#pragma once

#include "../once/batch.hpp"
#include "layer_space.hpp"

namespace lares::LARES_ISA {

// Everything a call's tiles share.
struct CallPlan {
    const LaresCall& call;
    const Batch& batch;
    const Shape& shape;
    const Weights& weights;

    Core core() const { return {shape, weights, uint64_t(call.seed)}; }
    // Number that the draws of a step carry.
    int rng_step(int step) const { return shape.recurrent() ? int(call.steps_done) + step : 0; }
    // First row in `kept` of what forward keeps of a sequence's step.
    int64_t kept_row(const Sequence& q, int step) const {
        return (step - 1) * batch.kept_rows + q.kept_row;
    }
};

// The rows that a reasoning step computes.
struct Step {
    int number;               // from 1
    int running, continuing;  // sequences that run it, and those of them that run the next one, too
    Rows rows;
    LiveRows all, live;  // before and after the last layer's attention
    // True if only sequence i's newest row is live.
    bool newest_alone(int i) const { return live.map && i >= continuing; }
};

// A sequence's live rows: where they lie among all live ones, and from which of its rows on.
struct LiveSequence {
    int first, count, from;
};

// The addresses of a tile's rows, and which of them still run.
class TileRows {
  public:
    TileRows(const CallPlan& plan, const Tile& tile, Arena& arena)
        : sequences_(plan.batch.sequences + tile.first),
          n_sequences_(tile.end - tile.first),
          total_(tile.rows) {
        // As much for every tile, so that they use the same memory.
        const size_t most = size_t(plan.batch.longest_tile), room = most + 2 * kLanes;
        streams_ = arena.take<uint32_t>(room);
        positions_ = arena.take<uint32_t>(room);
        starts_ = arena.take<int32_t>(room);
        ends_ = arena.take<int32_t>(room);
        lasts_ = arena.take<int32_t>(room);
        live_map_ = arena.take<int32_t>(room);
        live_streams_ = arena.take<uint32_t>(room);
        live_positions_ = arena.take<uint32_t>(room);
        groups_ = arena.take<LaneGroup>(most + 1);
        apart_ = arena.take<LaneGroup>(most + 1);
        first_rows_ = arena.take<int32_t>(most);
        lane_stride_ = round_up(total_, kLanes) + kLanes;
        if (!arena.counts()) write();
    }

    int sequences() const { return n_sequences_; }
    const Sequence& sequence(int i) const { return sequences_[i]; }
    int depth() const { return sequences_[0].depth; }
    int total_rows() const { return total_; }
    int first_row(int sequence) const {
        return sequence == n_sequences_ ? total_ : first_rows_[sequence];
    }

    // `whole`: all rows of every sequence stay live, as where a last state is asked for.
    Step step(int number, bool whole) {
        const int now = running(number), next = running(number + 1), count = first_row(now);
        const LiveRows all{count, nullptr, streams_, positions_};
        return {number,      now, next,
                rows(count), all, whole || next == now ? all : newest(next, now)};
    }
    // Row of sequence i's newest token among the live ones.
    int newest_row(const Step& step, int i) const {
        return step.newest_alone(i) ? first_row(step.continuing) + (i - step.continuing)
                                    : newest_row(i);
    }
    LiveSequence live_rows(const Step& step, int i) const {
        const Sequence& q = sequences_[i];
        if (step.newest_alone(i)) return {newest_row(step, i), 1, q.newest};
        return {first_row(i), q.length, 0};
    }

  private:
    void write() {
        int row = 0;
        for (int i = 0; i < n_sequences_; ++i) {
            const int first = row, newest = first + sequences_[i].newest;
            first_rows_[i] = first;
            for (int p = 0; p < sequences_[i].length; ++p, ++row) {
                streams_[row] = sequences_[i].stream;
                positions_[row] = uint32_t(p);
                starts_[row] = first;
                ends_[row] = first + sequences_[i].length;
                lasts_[row] = min(row, newest);
            }
        }
        for (; row < total_ + 2 * kLanes; ++row) {
            streams_[row] = positions_[row] = 0;
            starts_[row] = ends_[row] = INT32_MAX;  // may look at no key
            lasts_[row] = 0;
            live_streams_[row] = live_positions_[row] = 0;
        }
    }

    // Sequences that run step `step`; they are the first ones.
    int running(int step) const {
        int n = 0;
        while (n < n_sequences_ && sequences_[n].depth >= step) ++n;
        return n;
    }
    // Row of a sequence's newest token.
    int newest_row(int sequence) const { return first_row(sequence) + sequences_[sequence].newest; }

    Rows rows(int count) {
        if (count != grouped_) group(count);
        const Groups groups{groups_, apart_, n_groups_, n_apart_};
        return {count, streams_, positions_, starts_, ends_, lasts_, groups, lane_stride_};
    }

    // All rows of the first `continuing` sequences, and the newest row of those from there to
    // `running`.
    LiveRows newest(int continuing, int running) {
        const int kept = first_row(continuing);
        int n = 0;
        for (; n < kept; ++n) take_live(n, n);
        for (int i = continuing; i < running; ++i, ++n) take_live(n, newest_row(i));
        return {n, live_map_, live_streams_, live_positions_};
    }

    void take_live(int n, int row) {
        live_map_[n] = row;
        live_streams_[n] = streams_[row];
        live_positions_[n] = positions_[row];
    }

    void group(int count) {
        constexpr int kMost = LaneGroup::kKeepBlock;
        grouped_ = count;
        n_groups_ = n_apart_ = 0;
        for (int row = 0; row < count;) {
            const int first = starts_[row];
            const bool alone = ends_[row] - first > kMost;
            int end = row + 1;
            while (end < count && end - row < kLanes &&
                   (alone ? starts_[end] == first : ends_[end] - starts_[end] <= kMost))
                ++end;
            const bool shared = starts_[end - 1] != first;
            groups_[n_groups_++] = {row, end - row, first, shared};
            for (int from = row; from < end;) {
                const int stop = min(end, ends_[from]);
                apart_[n_apart_++] = {from, stop - from, starts_[from], shared};
                from = stop;
            }
            row = end;
        }
    }

    const Sequence* sequences_;
    int n_sequences_, n_groups_ = 0, n_apart_ = 0, grouped_ = -1, total_;
    uint32_t *streams_, *positions_, *live_streams_, *live_positions_;
    int32_t *starts_, *ends_, *lasts_, *live_map_, *first_rows_;
    LaneGroup *groups_, *apart_;
    ptrdiff_t lane_stride_;
};

}  // namespace lares::LARES_ISA
