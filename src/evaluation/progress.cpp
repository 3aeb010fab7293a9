// SPDX-License-Identifier: Apache-2.0
#include "evaluation/progress.h"

#include <cmath>

#include "system/error.h"
#include "system/log.h"

namespace amalgam {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

Progress::Progress(std::string what, const Communicator& group)
    : what_(std::move(what)), speaks_(group.is_root()), begun_(Clock::now()), said_(begun_) {}

void Progress::done(double cost) {
    done_ += cost;
    if (!speaks_ || seconds_since(said_) < 30.0) return;
    said_ = Clock::now();
    const double left = seconds_since(begun_) * (all_ - done_) / done_;
    info(text(what_, ": ", std::lround(100.0 * done_ / all_), " %, about ", std::lround(std::ceil(left / 60.0)),
              " min left"));
}

}  // namespace amalgam
