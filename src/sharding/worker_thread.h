// SPDX-License-Identifier: Apache-2.0
// A thread that runs what it is given, in that order. Started by the first work.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <future>
#include <mutex>
#include <thread>

namespace amalgam {

class WorkerThread {
  public:
    WorkerThread() = default;
    /// Finishes what it was given.
    ~WorkerThread();
    WorkerThread(const WorkerThread&) = delete;
    WorkerThread& operator=(const WorkerThread&) = delete;

    /// The future holds what `work` threw. When it is ready, `work` and what it held are gone.
    std::future<void> run(std::function<void()> work);

  private:
    struct Job {
        std::function<void()> work;
        std::promise<void> done;
    };
    void loop();

    std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<Job> waiting_;
    bool ending_ = false;
    std::thread thread_;
};

}  // namespace amalgam
