// Runs of pieces that lie side by side: each thread takes its own one by one, then half of another's.
//
// Memory is read fastest in long stretches: where one ends, what the processor has fetched ahead of it is
// wasted. A thread that is held up leaves what it has not begun to the others.
//
// Source: schedule(static_steal) of LLVM's OpenMP runtime; Hendler and Shavit, Non-blocking Steal-half
// Work Queues (2002).
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "scratch.h"

// Either one run, which all threads share, or one for each. A thread can begin one job of these at a time.
class Runs {
  public:
    // Run i has the pieces [first_of(i), first_of(i + 1)).
    template <typename First>
    Runs(int64_t num_runs, First first_of) : num_runs_(num_runs), runs_(scratch<Run>(num_runs)) {
        for (int64_t i = 0; i < num_runs; ++i) {
            runs_[i].store(packed(first_of(i), first_of(i + 1)), std::memory_order_relaxed);
        }
    }

    // Calls body(piece) for those of this thread's run, and then for those that other runs have left.
    template <typename Body>
    void take(int64_t thread, Body body) {
        Run& run = runs_[thread % num_runs_];
        do {
            uint64_t pieces = run.load(std::memory_order_relaxed);
            while (first(pieces) < end(pieces)) {
                if (!run.compare_exchange_weak(pieces, packed(first(pieces) + 1, end(pieces)))) continue;
                body(first(pieces));
                pieces = run.load(std::memory_order_relaxed);
            }
        } while (refill(thread % num_runs_));
    }

  private:
    // The first piece and the end, in one word. It is all there is to a run: whoever exchanges it has the
    // pieces that it says, even if they were in another run meanwhile. An empty one only its thread fills.
    struct alignas(64) Run : std::atomic<uint64_t> {};

    static uint64_t packed(uint64_t first, uint64_t end) { return first << 32 | end; }
    static int64_t first(uint64_t pieces) { return pieces >> 32; }
    static int64_t end(uint64_t pieces) { return pieces & 0xffffffff; }

    // Whether another run had pieces left, of which this one now has the latter half.
    bool refill(int64_t number) {
        for (int64_t i = 1; i < num_runs_; ++i) {
            Run& other = runs_[(number + i) % num_runs_];
            uint64_t pieces = other.load(std::memory_order_relaxed);
            while (first(pieces) < end(pieces)) {
                const int64_t middle = (first(pieces) + end(pieces)) / 2;
                if (!other.compare_exchange_weak(pieces, packed(first(pieces), middle))) continue;
                runs_[number].store(packed(middle, end(pieces)), std::memory_order_relaxed);
                return true;
            }
        }
        return false;
    }

    int64_t num_runs_;
    Run* runs_;
};
