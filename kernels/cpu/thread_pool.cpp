#include "thread_pool.h"

#include "profile.h"
#include "upcoming.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>

#include <pthread.h>
#include <sched.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace thread_pool {
namespace {

using Clock = std::chrono::steady_clock;

// Longer than Python takes between two kernels of a step, and shorter than anyone would miss.
constexpr auto WORKER_SPIN = std::chrono::microseconds(60);
// A piece takes a few microseconds, unless its thread has lost its core: then that may be ours.
constexpr auto CALLER_SPIN = std::chrono::microseconds(20);

void pause() {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

Upcoming upcoming;
thread_local Upcoming::Reader upcoming_reader;
thread_local int64_t thread_number = 0;

// Whether `is_true` became true while spinning.
template <typename Condition>
bool spin(Clock::duration limit, Condition is_true) {
    const auto end = Clock::now() + limit;
    do {
        for (int i = 0; i < 32; ++i) {
            if (is_true()) return true;
            if (!upcoming_reader.fetch(upcoming, thread_number, num_threads())) pause();
        }
    } while (Clock::now() < end);
    return is_true();
}

// The cores that workers have. Woken again and again, a thread may land on the core of the one that woke
// it, and stay there for milliseconds while others idle. So each worker has a core, from the last one
// down, and the caller keeps off these: it goes where it likes among the others, and takes the pieces of
// a worker whose core is busy. Where there are fewer threads than cores all may go where they like:
// other processes may have such threads, too, and two of the system's cores may be halves of one.
class Cores {
  public:
    // Gives this thread a core of its own.
    void take(int64_t number, int64_t num_threads) {
#ifdef __linux__
        cpu_set_t allowed, one;
        if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
        if (num_threads < CPU_COUNT(&allowed)) return;
        int64_t left = number % CPU_COUNT(&allowed);
        for (int cpu = CPU_SETSIZE - 1; cpu >= 0; --cpu) {
            if (!CPU_ISSET(cpu, &allowed) || left-- > 0) continue;
            CPU_ZERO(&one);
            CPU_SET(cpu, &one);
            if (pthread_setaffinity_np(pthread_self(), sizeof one, &one) == 0) is_taken_[cpu] = true;
            return;
        }
#endif
    }

    // Moves this thread, if it is on a worker's core: the system may take a second to. What it is
    // allowed to stays as it is, for its threads and processes to come.
    void leave() const {
#ifdef __linux__
        const int here = sched_getcpu();
        if (here < 0 || here >= CPU_SETSIZE || !is_taken_[here].load(std::memory_order_relaxed)) return;
        cpu_set_t allowed, others;
        if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
        CPU_ZERO(&others);
        for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
            if (CPU_ISSET(cpu, &allowed) && !is_taken_[cpu]) CPU_SET(cpu, &others);
        }
        if (CPU_COUNT(&others) == 0 || sched_setaffinity(0, sizeof others, &others) != 0) return;
        sched_setaffinity(0, sizeof allowed, &allowed);
#endif
    }

#ifdef __linux__
  private:
    std::atomic<bool> is_taken_[CPU_SETSIZE] = {};
#endif
};

// Which job it is, and its next piece that nobody has taken, in one word: a thread that comes late,
// with what it has read of a job that is over, fails to take a piece of the next one.
constexpr uint64_t ONE_JOB = uint64_t(1) << 32;
constexpr uint64_t PIECE = ONE_JOB - 1;

class Pool {
  public:
    // Grows to as many threads as are asked for; they live as long as the process.
    void run(int64_t num_pieces, int64_t num_threads, void (*piece)(void*, int64_t),
             void* context) {
        while (num_workers_ < num_threads - 1 && add_worker()) {
        }
        cores_.leave();
        // Nobody can take a piece while the job is being changed.
        const uint64_t closed = next_.load() | PIECE;
        next_.store(closed);
        num_pieces_.store(num_pieces, std::memory_order_release);
        max_workers_.store(num_threads - 1, std::memory_order_release);
        piece_.store(piece, std::memory_order_release);
        context_.store(context, std::memory_order_release);
        num_done_.store(0, std::memory_order_release);
        next_.store(closed + 1);
        if (num_sleeping_.load()) {
            std::lock_guard lock(mutex_);
            wake_workers_.notify_all();
        }
        take_pieces();
        auto is_done = [&] { return num_done_.load() == num_pieces; };
        if (!is_done()) wait_until(is_done);
    }

  private:
    // Whether the system had a thread to give; where it has none, those there are do all the work.
    bool add_worker() {
        try {
            std::thread(&Pool::work, this, num_workers_, thread_pool::num_threads()).detach();
        } catch (const std::system_error&) {
            return false;
        }
        ++num_workers_;
        return true;
    }

    template <typename Condition>
    void wait_until(Condition is_done) {
        const profile::Timer timer(profile::Part::WAITING);
        if (spin(CALLER_SPIN, is_done)) return;
        std::unique_lock lock(mutex_);
        caller_sleeps_.store(true);
        wake_caller_.wait(lock, is_done);
        caller_sleeps_.store(false);
    }

    void work(int64_t number, int64_t of_threads) {
        cores_.take(number, of_threads);
        thread_number = number + 1;
        uint64_t seen = 0;
        while (true) {
            auto is_new = [&] { return next_.load() / ONE_JOB != seen && !is_closed(); };
            if (!spin(WORKER_SPIN, is_new)) {
                std::unique_lock lock(mutex_);
                ++num_sleeping_;
                wake_workers_.wait(lock, is_new);
                --num_sleeping_;
            }
            seen = next_.load() / ONE_JOB;
            take_pieces();
        }
    }

    bool is_closed() const { return (next_.load() & PIECE) == PIECE; }

    void take_pieces() {
        uint64_t next = next_.load();
        while (true) {
            const auto i = int64_t(next & PIECE);
            const int64_t num_pieces = num_pieces_.load(std::memory_order_acquire);
            const auto piece = piece_.load(std::memory_order_acquire);
            void* const context = context_.load(std::memory_order_acquire);
            if (i == int64_t(PIECE) || i >= num_pieces) return;
            // Told of the job that the piece is of: a thread that comes late may have been one of the last.
            if (thread_number > max_workers_.load(std::memory_order_acquire)) return;
            if (!next_.compare_exchange_weak(next, next + 1)) continue;
            piece(context, i);
            if (num_done_.fetch_add(1) + 1 == num_pieces && caller_sleeps_.load()) {
                std::lock_guard lock(mutex_);
                wake_caller_.notify_one();
            }
            next = next_.load();
        }
    }

    Cores cores_;
    std::atomic<uint64_t> next_{PIECE};
    std::atomic<int64_t> num_pieces_{0}, max_workers_{0}, num_done_{0};
    std::atomic<void (*)(void*, int64_t)> piece_{nullptr};
    std::atomic<void*> context_{nullptr};
    int64_t num_workers_ = 0;

    std::mutex mutex_;
    std::condition_variable wake_workers_, wake_caller_;
    std::atomic<int64_t> num_sleeping_{0};
    std::atomic<bool> caller_sleeps_{false};
};

// Never destroyed: its threads run until the process ends. A child of a fork has none of them, and
// gets a pool of its own.
Pool* pool = new Pool;
std::atomic<bool> is_taken{false};

void forget_threads() {
    pool = new Pool;
    is_taken = false;
}

const int registered = pthread_atfork(nullptr, nullptr, forget_threads);

std::atomic<int64_t> threads{std::max<int64_t>(std::thread::hardware_concurrency(), 1)};

}  // namespace

int64_t num_threads() {
    static_cast<void>(registered);
    return threads.load(std::memory_order_relaxed);
}

int64_t this_thread() { return thread_number; }

void fetch_while_waiting(const void* data, int64_t num_pieces, int64_t piece_bytes) {
    upcoming.set(data, num_pieces, piece_bytes);
}

void run(int64_t num_pieces, int64_t num_threads, void (*piece)(void*, int64_t), void* context) {
    if (num_threads <= 1 || num_pieces <= 1 || is_taken.exchange(true)) {
        for (int64_t i = 0; i < num_pieces; ++i) piece(context, i);
        return;
    }
    pool->run(num_pieces, num_threads, piece, context);
    is_taken = false;
}

}  // namespace thread_pool

extern "C" int64_t get_num_threads() { return thread_pool::num_threads(); }

extern "C" void set_num_threads(int64_t num_threads) { thread_pool::threads = num_threads; }
