// SPDX-License-Identifier: Apache-2.0
#include "training/metrics.h"

#include <sys/resource.h>

#include <iomanip>
#include <sstream>

#include "system/clock.h"
#include "system/error.h"

namespace amalgam {

MetricsFile::MetricsFile(const std::filesystem::path& path) : start_(seconds_now()) {
    if (path.empty()) return;
    const bool is_new = !std::filesystem::exists(path);
    stream_.open(path, std::ios::app);
    if (!stream_) throw Error(text(path.string(), ": cannot be opened for writing"), ExitCode::storage);
    if (is_new)
        stream_ << "time_s,stage,candidate,layer,step,tokens,loss,gradient_norm,learning_rate,tokens_per_second,memory_"
                   "gib,skipped_updates\n"
                << std::flush;
}

void MetricsFile::append(const StepMetrics& metrics) {
    std::ostringstream time;
    time << std::setprecision(9) << seconds_now() - start_;
    append_row(metrics, time.str());
}

void MetricsFile::append_foreign(const StepMetrics& metrics) {
    append_row(metrics, "");
}

void MetricsFile::append_row(const StepMetrics& m, const std::string& time) {
    if (!stream_.is_open()) return;
    const std::string candidate = m.candidate ? std::to_string(*m.candidate) : "";
    stream_ << std::setprecision(9);
    stream_ << time << ',' << m.stage << ',' << candidate << ",," << m.step << ',' << m.tokens << ',' << m.losses.at(0)
            << ',' << m.gradient_norm << ',' << m.learning_rate << ',' << m.tokens_per_second << ',' << m.memory_gib
            << ',' << m.skipped_updates << '\n';
    for (size_t layer = 0; layer + 1 < m.losses.size(); ++layer)
        stream_ << time << ',' << m.stage << ',' << candidate << ',' << layer << ',' << m.step << ',' << m.tokens << ','
                << m.losses[layer + 1] << ",,,,,\n";
    stream_ << std::flush;
}

std::string progress_line(const StepMetrics& m) {
    std::ostringstream line;
    line << m.stage;
    if (m.candidate) line << " candidate " << *m.candidate;
    line << "  step " << m.step << '/' << m.steps << "  loss " << std::setprecision(5) << m.losses.at(0) << "  grad "
         << std::setprecision(3) << m.gradient_norm << "  " << std::fixed << std::setprecision(0) << m.tokens_per_second
         << " tokens/s";
    if (m.utilisation) line << "  MFU " << std::setprecision(1) << 100.0 * *m.utilisation << " %";
    if (m.skipped_updates > 0) line << "  " << m.skipped_updates << " updates skipped";
    line << "  " << std::setprecision(1) << m.memory_gib << " GiB  " << format_duration(m.seconds_left) << " left";
    return line.str();
}

double peak_memory_gib() {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return double(usage.ru_maxrss) / (1024.0 * 1024.0);  // ru_maxrss is in KiB on Linux
}

}  // namespace amalgam
