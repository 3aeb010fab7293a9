// SPDX-License-Identifier: Apache-2.0
#include "watchdog.h"

#include <mpi.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <sstream>

namespace amalgam::test {

namespace {

double limit_from_environment() {
    const char* given = std::getenv("AMALGAM_TEST_TIMEOUT");
    const double seconds = given != nullptr ? std::atof(given) : 0;
    return seconds > 0 ? seconds : 60;
}

}  // namespace

Watchdog::Watchdog(int rank, int ranks)
    : rank_(rank), ranks_(ranks), limit_(limit_from_environment()), thread_([this] { watch(); }) {}

Watchdog::~Watchdog() {
    {
        std::lock_guard lock(mutex_);
        stop_ = true;
        ++generation_;
    }
    changed_.notify_all();
    thread_.join();
}

void Watchdog::begin(const std::string& what) {
    {
        std::lock_guard lock(mutex_);
        what_ = what;
        failures_.clear();
        finished_ = false;
        ++generation_;
    }
    changed_.notify_all();
}

void Watchdog::finished() {
    std::lock_guard lock(mutex_);
    finished_ = true;
}

void Watchdog::add_failure(const std::string& message) {
    std::lock_guard lock(mutex_);
    failures_ += "\n  " + message;
}

void Watchdog::idle() {
    begin("");
}

void Watchdog::watch() {
    std::unique_lock lock(mutex_);
    while (!stop_) {
        const long watched = generation_;
        const auto has_changed = [&] { return generation_ != watched; };
        if (what_.empty()) {
            changed_.wait(lock, has_changed);
        } else if (!changed_.wait_for(lock, std::chrono::duration<double>(limit_), has_changed)) {
            std::ostringstream report;
            report << "[rank " << rank_ << " of " << ranks_ << "] " << what_
                   << (finished_ ? " is over here and waits for the other ranks, after " : " still runs after ")
                   << limit_ << " s; the job is ended." << (failures_.empty() ? "" : " What failed here:" + failures_)
                   << "\n";
            end_job(report.str());
        }
    }
}

void Watchdog::end_job(const std::string& report) const {
    std::fputs(report.c_str(), stderr);
    std::fflush(stderr);
    std::this_thread::sleep_for(std::chrono::seconds(1));  // lets the other ranks report too
    alarm(5);                                              // kills this process if MPI_Abort hangs as well
    MPI_Abort(MPI_COMM_WORLD, 1);
    _exit(1);
}

}  // namespace amalgam::test
