// SPDX-License-Identifier: Apache-2.0
// `amalgam check`: what is wrong with a job and what it will need, on a login node without MPI or GPU. Times are those
// of the machine where it runs, or of a kind of GPU.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace amalgam {

struct CheckOptions {
    int64_t ranks = 1;
    double memory_gb = 0.0;    // of a rank; 0: not judged
    std::string device;        // auto, cpu, cuda or a kind of GPU (gpu_kinds.h); empty: as the job says
    double peak_tflops = 0.0;  // of a rank, in the compute precision; 0: measured, or of a data sheet
    double utilisation = 0.0;  // assumed fraction of it; 0: what runs reached on such devices
    int64_t ranks_per_node = 8;
    double node_bandwidth_gb = 2.0;  // per second, to the file system from one node
    std::string shape;               // known_shapes.h; empty: as the teacher's config.json says
};

/// Prints the table. Throws Error(bad_input) if the job cannot run.
void check_command(const std::string& job_file, const std::vector<std::string>& overrides, const CheckOptions& options);

}  // namespace amalgam
