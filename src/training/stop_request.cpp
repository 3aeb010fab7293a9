// SPDX-License-Identifier: Apache-2.0
#include "training/stop_request.h"

#include "system/clock.h"
#include "system/signals.h"

namespace amalgam {
namespace {

const double process_start = seconds_now();

bool is_there(const std::filesystem::path& file) {
    std::error_code ignored;
    return std::filesystem::exists(file, ignored);
}

/// `save` acts once: the file is removed.
bool take(const std::filesystem::path& file) {
    std::error_code ignored;
    return std::filesystem::remove(file, ignored);
}

}  // namespace

bool StopRequest::seen() {
    const double now = seconds_now() - process_start;
    if (seen_ || (looked_ >= 0.0 && now < looked_ + 1.0)) return seen_;
    looked_ = now;
    seen_ = take_signals().save_and_stop || is_due(0.0);
    return seen_;
}

/// By the trigger file, which stays for the ranks that have not seen it yet (the next start removes it), or the clock.
bool StopRequest::is_due(double seconds_ahead) const {
    return is_there(folder_ / "stop") || (walltime_ > 0.0 && seconds_now() - process_start + seconds_ahead > walltime_);
}

Requests StopRequest::ask(const Communicator& group, double seconds_ahead) {
    const SignalFlags signals = take_signals();
    bool stop = signals.save_and_stop, save = signals.save;
    if (group.is_root()) {
        stop = stop || is_due(seconds_ahead);
        save = save || take(folder_ / "save");
    }
    const int64_t agreed = group.max(int64_t{stop ? 2 : save ? 1 : 0});
    stopping_ = stopping_ || agreed == 2;
    return {agreed >= 1, agreed == 2};
}

}  // namespace amalgam
