// What is read next, fetched from memory by threads that wait for work or for each other.
#pragma once

#include <atomic>
#include <cstdint>

// Pieces that lie side by side, of which each thread is to read a run. Nothing is wrong if a thread sees
// only a part of it changed: it fetches something else.
class Upcoming {
  public:
    void set(const void* data, int64_t num_pieces, int64_t piece_bytes) {
        num_pieces_.store(num_pieces, std::memory_order_relaxed);
        piece_bytes_.store(piece_bytes, std::memory_order_relaxed);
        data_.store(static_cast<const char*>(data), std::memory_order_release);
    }

    // A thread's place in it.
    class Reader {
      public:
        // Fetches a few lines of what this thread reads first; false if there are none any more.
        bool fetch(const Upcoming& upcoming, int64_t thread, int64_t num_threads) {
            const char* data = upcoming.data_.load(std::memory_order_acquire);
            if (data != data_) {
                data_ = data;
                next_ = data + upcoming.num_pieces_.load(std::memory_order_relaxed) * thread /
                                   num_threads *
                                   upcoming.piece_bytes_.load(std::memory_order_relaxed);
                end_ = next_ + MOST_BYTES;
            }
            if (next_ == end_) return false;
            for (const char* end = next_ + BYTES; next_ < end; next_ += LINE_BYTES) {
                __builtin_prefetch(next_, 0, 2);
            }
            return true;
        }

      private:
        static constexpr int64_t LINE_BYTES = 64, BYTES = 4 * LINE_BYTES;
        // What leaves room in an L2 cache of 1 MiB. Twice as much was worth less.
        static constexpr int64_t MOST_BYTES = 256 * 1024;

        const char *data_ = nullptr, *next_ = nullptr, *end_ = nullptr;
    };

  private:
    std::atomic<const char*> data_{nullptr};
    std::atomic<int64_t> num_pieces_{0}, piece_bytes_{0};
};
