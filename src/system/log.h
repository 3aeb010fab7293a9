// SPDX-License-Identifier: Apache-2.0
// Two loggers over Boost.Log. `log_all` is for what happens alike on all ranks: only rank 0 prints it. `log_rank` is
// for what happens on a single rank: every rank prints, prefixed `[rank 3 of 8, host]`. Both go to standard error and,
// once a run folder is known, rank 0's also to its `log.txt`. Level by environment AMALGAM_LOG =
// debug|info|warning|error.
#pragma once

#include <string>

namespace amalgam {

enum class LogLevel { debug, info, warning, error };

/// To be called once after MPI is up (rank 0 of 1 before that). host: short host name for the prefix.
void start_logging(int rank, int ranks, const std::string& host);

/// Also appends rank 0's lines to `path` from now on.
void log_to_file(const std::string& path);

void log_all(LogLevel level, const std::string& message);
void log_rank(LogLevel level, const std::string& message);

inline void info(const std::string& message) {
    log_all(LogLevel::info, message);
}
inline void warn(const std::string& message) {
    log_all(LogLevel::warning, message);
}

}  // namespace amalgam
