// SPDX-License-Identifier: Apache-2.0
// Ends a job that does not get on. A blocking MPI call cannot time out, so a thread of every process watches what its
// main thread does (system/activity.h). If nothing was finished within the deadline of the phase, it tells rank 0,
// whose watchdog asks all ranks what they do, prints who is missing and who waits where for how long, and aborts the
// job with exit code `communication`. Messages have a constant size and are sent only when a rank is late.
//
// The job is over within the deadline + 30 s, also if rank 0 is the one that is stuck (rank 1 takes its place), and if
// MPI is stuck as well (the process leaves without it). Time counts only while a process runs: a job that was suspended
// and goes on is not late.
#pragma once

#include <memory>
#include <string>

#include "comm/communicator.h"
#include "system/activity.h"

namespace amalgam {

/// Seconds in which something must get finished; 0: no deadline.
struct Deadlines {
    double setup = 0.0, step = 0.0, checkpoint = 0.0;
    double of(Phase phase) const { return phase == Phase::setup ? setup : phase == Phase::step ? step : checkpoint; }
};

class Watchdog {
  public:
    /// Collective over `world`, of which it takes a duplicate. Records the calling thread's activity.
    Watchdog(const Communicator& world, const Deadlines& deadlines);
    /// Collective, unless an exception is on its way.
    ~Watchdog();
    Watchdog(const Watchdog&) = delete;
    Watchdog& operator=(const Watchdog&) = delete;

  private:
    class Threads;
    std::unique_ptr<Threads> threads_;
};

/// Communication beside MPI that the watchdog looks after (NCCL), from its construction to its end. Both functions are
/// called from the watchdog's thread.
class WatchedLink {
  public:
    WatchedLink(const WatchedLink&) = delete;
    WatchedLink& operator=(const WatchedLink&) = delete;
    /// An asynchronous error; empty if there is none.
    virtual std::string problem() = 0;
    /// Gives up what is in flight: the process is about to end.
    virtual void abort() = 0;

  protected:
    WatchedLink() = default;
    virtual ~WatchedLink() = default;
    /// To be called at the end of the constructor and at the beginning of the destructor of the class that has the two
    /// functions.
    void watch();
    void unwatch();
};

}  // namespace amalgam
