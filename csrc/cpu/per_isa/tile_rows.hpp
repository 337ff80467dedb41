// The rows of a tile's sequences: their addresses, their groups, and which of them still run.
#pragma once

#include "../once/batch.hpp"
#include "window_layer.hpp"

namespace lares::LARES_ISA {

// Everything a call's tiles share.
struct CallPlan {
    const LaresCall& call;
    const Batch& batch;
    const Shape& shape;
    const Weights& weights;

    Core core() const { return {shape, weights, uint64_t(call.seed)}; }
    // Number that the draws of a step carry.
    int drawn_step(int step) const { return shape.recurrent() ? int(call.steps_done) + step : 0; }
};

// The addresses of a tile's rows, and which of them still run.
class TileRows {
  public:
    static size_t bytes(int rows) {
        return 9 * Arena::bytes_of<uint64_t>(size_t(rows) + 2 * kLanes) +
               2 * Arena::bytes_of<LaneGroup>(size_t(rows) + 1);
    }

    TileRows(const CallPlan& plan, const Tile& tile, Arena& arena)
        : sequences_(plan.batch.sequences + tile.first), n_sequences_(tile.end - tile.first) {
        const size_t room = size_t(tile.rows) + 2 * kLanes;
        streams_ = arena.take<uint32_t>(room);
        positions_ = arena.take<uint32_t>(room);
        starts_ = arena.take<int32_t>(room);
        ends_ = arena.take<int32_t>(room);
        lasts_ = arena.take<int32_t>(room);
        live_map_ = arena.take<int32_t>(room);
        live_streams_ = arena.take<uint32_t>(room);
        live_positions_ = arena.take<uint32_t>(room);
        groups_ = arena.take<LaneGroup>(size_t(tile.rows) + 1);
        apart_ = arena.take<LaneGroup>(size_t(tile.rows) + 1);
        lane_stride_ = round_up(tile.rows, kLanes) + kLanes;
        int row = 0;
        for (int i = 0; i < n_sequences_; ++i) {
            const int first = row, newest = first + sequences_[i].newest;
            for (int p = 0; p < sequences_[i].length; ++p, ++row) {
                streams_[row] = sequences_[i].stream;
                positions_[row] = uint32_t(p);
                starts_[row] = first;
                ends_[row] = first + sequences_[i].length;
                lasts_[row] = min(row, newest);
            }
        }
        for (; row < int(room); ++row) {
            streams_[row] = positions_[row] = 0;
            starts_[row] = ends_[row] = INT32_MAX;  // may look at no key
            lasts_[row] = 0;
            live_streams_[row] = live_positions_[row] = 0;
        }
    }

    int sequences() const { return n_sequences_; }
    const Sequence& sequence(int i) const { return sequences_[i]; }
    int depth() const { return sequences_[0].depth; }
    ptrdiff_t lane_stride() const { return lane_stride_; }

    // Sequences that run step `step`; they are the first ones.
    int running(int step) const {
        int n = 0;
        while (n < n_sequences_ && sequences_[n].depth >= step) ++n;
        return n;
    }
    int first_row(int sequence) const {
        return sequence == n_sequences_ ? total_rows() : row_of_[sequence];
    }

    // Row of a sequence's newest token.
    int newest_row(int sequence) const { return first_row(sequence) + sequences_[sequence].newest; }

    Rows rows(int count) {
        if (count != grouped_) group(count);
        const Groups groups{groups_, apart_, n_groups_, n_apart_};
        return {count, streams_, positions_, starts_, ends_, lasts_, groups, lane_stride_};
    }

    LiveRows all(int count) const { return {count, nullptr, streams_, positions_}; }

    // All rows of the first `going` sequences, and the newest row of those from there to `running`.
    LiveRows newest(int going, int running) {
        const int kept = first_row(going);
        int n = 0;
        for (; n < kept; ++n) take_live(n, n);
        for (int i = going; i < running; ++i, ++n) take_live(n, newest_row(i));
        return {n, live_map_, live_streams_, live_positions_};
    }

    void set_row_of(int32_t* row_of) {
        row_of_ = row_of;
        int row = 0;
        for (int i = 0; i < n_sequences_; ++i) {
            row_of_[i] = row;
            row += sequences_[i].length;
        }
        total_ = row;
    }
    int total_rows() const { return total_; }

  private:
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
    int n_sequences_, n_groups_ = 0, n_apart_ = 0, grouped_ = -1, total_ = 0;
    uint32_t *streams_, *positions_, *live_streams_, *live_positions_;
    int32_t *starts_, *ends_, *lasts_, *live_map_, *row_of_ = nullptr;
    LaneGroup *groups_, *apart_;
    ptrdiff_t lane_stride_;
};

}  // namespace lares::LARES_ISA
