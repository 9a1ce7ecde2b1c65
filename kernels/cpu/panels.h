// Panels of output features: how a product is shared out, and what becomes of its sums.
#pragma once

#include "ops.h"
#include "parallel.h"
#include "runs.h"
#include "silu.h"
#include "tile.h"

constexpr int PANEL = TILE_VECS * VEC;
// Rows taken at a time, so that their sums stay in the L1 cache beside the activations.
constexpr int64_t BLOCK_ROWS = 96;

// A block of rows of one panel: what a thread computes at a time.
struct Piece {
    int64_t panel, first_row, num_rows;
};

// A product's pieces, panel by panel. The last ones, one for each thread, are cut smaller, so that threads
// end together.
class Pieces {
  public:
    Pieces(int64_t num_panels, int64_t num_rows, int64_t num_threads)
        : num_panels_(num_panels),
          num_rows_(num_rows),
          num_blocks_((num_rows + BLOCK_ROWS - 1) / BLOCK_ROWS),
          num_whole_(std::max<int64_t>(num_panels * num_blocks_ - num_threads, 0)),
          num_parts_(num_threads == 1 ? 1 : std::clamp<int64_t>(num_rows / TILE_ROWS, 1, MAX_PARTS)),
          num_runs_(num_blocks_ > 1 ? 1 : num_threads) {}

    int64_t size() const { return first_of(num_runs_); }

    // Of a block of rows each thread has a run of panels. Several blocks are one run that all threads
    // share, so that few panels are read at a time.
    int64_t num_runs() const { return num_runs_; }
    // The first piece of a run; of the one behind the last, the number of pieces.
    int64_t first_of(int64_t run) const {
        const int64_t i = num_panels_ * run / num_runs_ * num_blocks_;
        return i + std::max<int64_t>(i - num_whole_, 0) * (num_parts_ - 1);
    }

    Piece operator[](int64_t i) const {
        const int64_t cut = std::max<int64_t>(i - num_whole_, 0);
        const int64_t whole = std::min(i, num_whole_) + cut / num_parts_;
        const int64_t parts = i < num_whole_ ? 1 : num_parts_, part = cut % num_parts_;
        const int64_t block = whole % num_blocks_;
        const int64_t begin = num_rows_ * block / num_blocks_;
        const int64_t rows = num_rows_ * (block + 1) / num_blocks_ - begin;
        const int64_t first = begin + rows * part / parts;
        return {whole / num_blocks_, first, begin + rows * (part + 1) / parts - first};
    }

  private:
    static constexpr int64_t MAX_PARTS = 4;

    int64_t num_panels_, num_rows_, num_blocks_, num_whole_, num_parts_, num_runs_;
};

// Calls body(piece, next) for each piece; `next` is the panel that its thread comes to after that,
// unless another one is faster.
template <typename Body>
void parallel_pieces(int64_t num_panels, int64_t num_rows, Body body) {
    const int64_t num_threads = thread_pool::num_threads();
    const Pieces pieces(num_panels, num_rows, num_threads);
    const int64_t step = num_threads / pieces.num_runs(), last = pieces.size() - 1;
    Runs runs(pieces.num_runs(), [&](int64_t run) { return pieces.first_of(run); });
    parallel_for(std::min(num_threads, pieces.size()), num_threads, [&](int64_t) {
        runs.take(thread_pool::this_thread(), [&](int64_t i) {
            body(pieces[i], pieces[std::min(i + step, last)].panel);
        });
    });
}

// How many panels a weight has. Those of a gated one are half gate, half up.
inline int64_t panels_of(const PackedWeight& weight) {
    const int64_t outputs = weight.is_gated ? PANEL / 2 : PANEL;
    return (weight.out_features + outputs - 1) / outputs;
}

// A product's result, [num_rows, weight.out_features], which it replaces or is added to.
template <typename T>
struct Result {
    const PackedWeight& weight;
    T* data;
    bool adds;

    // Writes a piece of it; sum(row, i) is a vector of the piece's sums, from feature i on.
    template <typename Sum>
    void store(const Piece& piece, Sum sum) const {
        if (weight.is_gated) {
            each_vec(piece, PANEL / 2, [&](Vec, int64_t row, int64_t i) {
                return silu<T>(sum(row, i)) * sum(row, PANEL / 2 + i);
            });
        } else if (adds) {
            each_vec(piece, PANEL, [&](Vec old, int64_t row, int64_t i) { return old + sum(row, i); });
        } else {
            each_vec(piece, PANEL, [&](Vec, int64_t row, int64_t i) { return sum(row, i); });
        }
    }

  private:
    // Puts value(what is there, row, i) in the place of each vector of a piece, `width` to a panel.
    template <typename Value>
    void each_vec(const Piece& piece, int64_t width, Value value) const {
        const int64_t first = piece.panel * width;
        const int64_t size = std::min(width, weight.out_features - first);
        for (int64_t row = 0; row < piece.num_rows; ++row) {
            T* target = data + (piece.first_row + row) * weight.out_features + first;
            for_each_vec(size, [&](int64_t i, auto load, auto store) {
                store(target + i, value(adds ? load(target + i) : Vec{}, row, i));
            });
        }
    }
};
