// SPDX-License-Identifier: Apache-2.0
// Should the run save, or save and stop? Signals on any rank, the walltime by rank 0's clock, and the trigger files
// `stop` and `save` in the run folder are asked at the end of a step, and all ranks get the same answer.
#pragma once

#include <filesystem>

#include "comm/communicator.h"

namespace amalgam {

struct Requests {
    bool save = false;
    bool stop = false;  // save first
};

class StopRequest {
  public:
    /// walltime in seconds since the start of the process; 0: none.
    StopRequest(std::filesystem::path run_folder, double walltime)
        : folder_(std::move(run_folder)), walltime_(walltime) {}

    /// Collective over `group`. `seconds_ahead`: what a step and a save will still take.
    Requests ask(const Communicator& group, double seconds_ahead);
    /// True once a stop was agreed on.
    bool stopping() const { return stopping_; }

    /// Has this rank seen a reason to stop, by itself? For work of which each rank does its share apart from the
    /// others; they agree afterwards. Looks once a second.
    bool seen();

  private:
    bool is_due(double seconds_ahead) const;

    std::filesystem::path folder_;
    double walltime_;
    bool stopping_ = false, seen_ = false;
    double looked_ = -1.0;  // seconds since the start of the process
};

}  // namespace amalgam
