// Threads that wait a moment for the next piece of work before they sleep.
//
// The pieces of a job are taken one by one by whoever is free, the caller among them: a thread that
// another process has pushed off its core holds up no more than the piece it is at. So a server's
// processes can share the cores (with OpenMP each such moment costs a time slice of milliseconds).
#pragma once

#include <cstdint>

namespace thread_pool {

// One a core, unless set_num_threads said otherwise.
int64_t num_threads();

// Calls piece(context, i) once for each i in [0, num_pieces), on any of `num_threads` threads; returns
// when all are done. One caller at a time has the threads; others, and pieces, do their work alone.
void run(int64_t num_pieces, int64_t num_threads, void (*piece)(void* context, int64_t i),
         void* context);

// The number of this thread among those of a job, below num_threads; a caller's is 0.
int64_t this_thread();

// What threads that wait fetch into their L2 caches from now on, see upcoming.h: of so many pieces thread i
// of n reads num_pieces * i / n and those that follow.
void fetch_while_waiting(const void* data, int64_t num_pieces, int64_t piece_bytes);

}  // namespace thread_pool
