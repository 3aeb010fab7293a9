// SPDX-License-Identifier: Apache-2.0
// metrics.csv, appended row by row (columns in outputs/README.md), and the progress lines that people watch.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

namespace amalgam {

struct StepMetrics {
    std::string stage;
    std::optional<int64_t> candidate;
    int64_t step = 0, steps = 0;  // optimizer steps done and planned
    int64_t tokens = 0;
    std::vector<double> losses;  // main loss, then one for each layer where the objective has them
    double gradient_norm = 0.0, learning_rate = 0.0;
    double tokens_per_second = 0.0, memory_gib = 0.0;
    int64_t skipped_updates = 0;  // of the stage or candidate so far
    double seconds_left = 0.0;
    std::optional<double> utilisation;  // model flop/s over the peak, where the peak is known
};

class MetricsFile {
  public:
    /// Appends to `path`, writing the header if the file is new. An empty path: no file (ranks that do not write).
    explicit MetricsFile(const std::filesystem::path& path);
    void append(const StepMetrics& metrics);
    /// A row that was logged by another process, perhaps long ago: its time_s is left empty.
    void append_foreign(const StepMetrics& metrics);

  private:
    void append_row(const StepMetrics& metrics, const std::string& time);

    std::ofstream stream_;
    double start_;
};

/// "align  step 120/2034  loss 0.0312  1.7e3 tokens/s  2.1 GiB  0:45 left".
std::string progress_line(const StepMetrics& metrics);

/// Peak resident memory of this process, GiB.
double peak_memory_gib();

}  // namespace amalgam
