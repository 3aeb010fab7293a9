// SPDX-License-Identifier: Apache-2.0
// Ends the whole MPI job when a test takes too long, and says which test it was, on which rank, and what had already
// failed there: without it one rank that leaves a collective early would make all the others wait for ever.
#pragma once

#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

namespace amalgam::test {

class Watchdog {
  public:
    /// Limit in seconds for one test: environment AMALGAM_TEST_TIMEOUT, 60 if it is not set.
    Watchdog(int rank, int ranks);
    ~Watchdog();

    /// The clock starts anew. what: "Suite.test".
    void begin(const std::string& what);
    /// The test is over here; the clock goes on, because the other ranks are now waited for.
    void finished();
    /// Told to people if the limit is passed.
    void add_failure(const std::string& message);
    /// Nothing runs; no limit.
    void idle();

  private:
    void watch();
    [[noreturn]] void end_job(const std::string& report) const;

    const int rank_, ranks_;
    double limit_;  // seconds
    std::mutex mutex_;
    std::condition_variable changed_;
    std::string what_, failures_;
    bool finished_ = false, stop_ = false;
    long generation_ = 0;
    std::thread thread_;
};

}  // namespace amalgam::test
