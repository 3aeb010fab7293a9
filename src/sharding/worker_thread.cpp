// SPDX-License-Identifier: Apache-2.0
#include "sharding/worker_thread.h"

namespace amalgam {

WorkerThread::~WorkerThread() {
    {
        const std::lock_guard lock(mutex_);
        ending_ = true;
    }
    changed_.notify_one();
    if (thread_.joinable()) thread_.join();
}

std::future<void> WorkerThread::run(std::function<void()> work) {
    Job job{std::move(work), {}};
    std::future<void> done = job.done.get_future();
    {
        const std::lock_guard lock(mutex_);
        waiting_.push_back(std::move(job));
    }
    if (!thread_.joinable()) thread_ = std::thread([this] { loop(); });
    changed_.notify_one();
    return done;
}

void WorkerThread::loop() {
    std::unique_lock lock(mutex_);
    while (true) {
        changed_.wait(lock, [this] { return ending_ || !waiting_.empty(); });
        if (waiting_.empty()) return;
        Job job = std::move(waiting_.front());
        waiting_.pop_front();
        lock.unlock();
        std::exception_ptr failure;
        try {
            job.work();
        } catch (...) {
            failure = std::current_exception();
        }
        job.work = nullptr;
        if (failure)
            job.done.set_exception(failure);
        else
            job.done.set_value();
        lock.lock();
    }
}

}  // namespace amalgam
