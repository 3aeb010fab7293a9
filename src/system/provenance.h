// SPDX-License-Identifier: Apache-2.0
// Who made a file: version, commit, libraries, host, scheduler job, command line. Written into every result file.
#pragma once

#include <string>
#include <vector>

namespace amalgam {

struct Provenance {
    std::string software_version;
    std::string git_sha;  // "unknown" outside a checkout; ends in "-dirty" for a changed tree
    std::string date;     // ISO 8601
    std::string machine;  // host name of rank 0
    std::string job_id;   // of Slurm, PBS, LSF or Flux; empty without a scheduler
    std::string command_line;
    std::string libraries;  // "Open MPI 4.1.4; HDF5 1.10.8; ..."
    std::string job;        // resolved job file, YAML
    long ranks = 1;
};

/// Remembers argv for provenance().
void set_command_line(int argc, const char* const* argv);

/// Adds "name version" to `libraries` (each floor reports what it links).
void report_library(const std::string& name_and_version);

/// What is known now. `ranks` and `job` are filled in by the caller.
Provenance provenance();

std::string host_name();
std::string version();  // "amalgam 0.1.0 (sha)"

}  // namespace amalgam
