// Where the time of steps goes: nanoseconds spent in each kind of work since the process began.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

namespace profile {

// In the order of kernels/profile.py. WAITING, for other threads, is a part of the others' time.
enum class Part { LINEAR, ATTENTION, ROPE_AND_KV_WRITE, NORM, HEAD, SAMPLING, WAITING, COUNT };

// Of all threads that run steps: one, unless a process has several models.
inline std::atomic<int64_t> nanoseconds[int(Part::COUNT)];
// Outside the layers a product is the head's.
inline thread_local bool is_in_layers = false;

// Adds its own lifetime to a part.
class Timer {
  public:
    explicit Timer(Part part) : part_(part), start_(Clock::now()) {}
    Timer(const Timer&) = delete;
    ~Timer() {
        const std::chrono::nanoseconds lifetime = Clock::now() - start_;
        nanoseconds[int(part_)].fetch_add(lifetime.count(), std::memory_order_relaxed);
    }

  private:
    using Clock = std::chrono::steady_clock;

    const Part part_;
    const Clock::time_point start_;
};

}  // namespace profile
