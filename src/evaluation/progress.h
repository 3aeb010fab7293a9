// SPDX-License-Identifier: Apache-2.0
// How far the work of the first rank is, and how long it will take, in the log every half minute.
#pragma once

#include <chrono>
#include <string>

#include "comm/communicator.h"

namespace amalgam {

class Progress {
  public:
    Progress(std::string what, const Communicator& group);

    /// Work of this rank to come, in any unit.
    void expect(double cost) { all_ += cost; }
    /// So much of it was done.
    void done(double cost);

  private:
    std::string what_;
    bool speaks_;
    double all_ = 0.0, done_ = 0.0;
    std::chrono::steady_clock::time_point begun_, said_;
};

}  // namespace amalgam
