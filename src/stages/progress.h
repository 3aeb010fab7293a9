// SPDX-License-Identifier: Apache-2.0
// Does a run that is stopped and started again and again get on? A start has done something if afterwards there are
// other results, candidates or checkpoints in the run folder than before.
#pragma once

#include <cstdint>
#include <filesystem>
#include <set>

namespace amalgam {

class Progress {
  public:
    /// Remembers what is in the folder now. Serial, as all of it.
    explicit Progress(std::filesystem::path run_folder);
    /// To be called when the run stops: how many starts in a row, this one included, have done nothing. Kept in the
    /// folder's file `stalled`, which is there only if there are any. Throws Error(storage).
    int64_t starts_without() const;
    /// The run has come to its end.
    void forget() const;

  private:
    std::set<std::string> results() const;

    std::filesystem::path folder_;
    std::set<std::string> before_;
};

}  // namespace amalgam
