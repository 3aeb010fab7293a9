// SPDX-License-Identifier: Apache-2.0
// Errors that people read: PROBLEM (WHY IT MATTERS) SUGGESTION. The text names file and field; the code becomes the
// exit status of the program (table in outputs/README.md).
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace amalgam {

enum class ExitCode : int {
    success = 0,
    failure = 1,        // anything not named below
    bad_input = 2,      // job file, command line, model folder, corpus: nothing was started
    damaged_file = 3,   // a file of the run folder or a model failed its checks
    storage = 4,        // a file could not be written: disk full, quota, permissions
    diverged = 5,       // a loss, weights or a measurement are not finite: nothing of them is kept
    communication = 6,  // MPI or NCCL failed, or a rank did not answer within its deadline
    no_progress = 7,    // stopped on request twice in a row without anything done in between: not to be queued again
    busy = 8,           // another run is at work in the run folder: nothing was started
    resumable = 75      // stopped on request (signal, walltime, trigger file) after saving: run it again to go on
};

class Error : public std::runtime_error {
  public:
    explicit Error(const std::string& what, ExitCode code = ExitCode::failure)
        : std::runtime_error(what), code_(code) {}
    ExitCode code() const { return code_; }

  private:
    ExitCode code_;
};

/// An error that all ranks throw alike: one of them prints it, and the job can end in an orderly way.
class SharedError : public Error {
  public:
    using Error::Error;
};

/// Streams all parts into one string: `text("rank ", 3, " of ", 8)`.
template <class... Parts>
std::string text(const Parts&... parts) {
    std::ostringstream stream;
    (stream << ... << parts);
    return stream.str();
}

/// Throws Error(ExitCode::bad_input) unless `condition` holds. For what users give: always on, in every build.
template <class... Parts>
void require(bool condition, const Parts&... parts) {
    if (!condition) throw Error(text(parts...), ExitCode::bad_input);
}

}  // namespace amalgam
