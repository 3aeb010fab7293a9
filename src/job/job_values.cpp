// SPDX-License-Identifier: Apache-2.0
#include "job/job_values.h"

#include <charconv>
#include <cmath>

#include "system/clock.h"
#include "system/error.h"

namespace amalgam {

namespace {

/// Digits only, at most nine; -1 if `word` is anything else.
int64_t digits(const std::string& word) {
    int64_t value = -1;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
    const bool all_read = error == std::errc() && end == word.data() + word.size() && word.size() <= 9;
    return all_read && word[0] != '-' ? value : -1;
}

}  // namespace

int64_t training_steps(const TrainingJob& stage) {
    return stage.tokens / (stage.sequence_length * stage.batch_sequences);
}

int64_t kept_layers(const SelectJob& select, int64_t layers) {
    return selection_rule(select.rule).kept(select.options, layers);
}

int64_t walltime_seconds(const std::string& walltime) {
    if (walltime.empty()) return 0;
    const size_t first = walltime.find(':'), second = walltime.find(':', first + 1);
    int64_t hours = -1, minutes = -1, seconds = -1;
    if (first != std::string::npos && second != std::string::npos) {
        hours = digits(walltime.substr(0, first));
        minutes = digits(walltime.substr(first + 1, second - first - 1));
        seconds = digits(walltime.substr(second + 1));
    }
    require(hours >= 0 && minutes >= 0 && minutes < 60 && seconds >= 0 && seconds < 60, "walltime is \"", walltime,
            "\" (after how long shall the run save and stop?) write hours:minutes:seconds, such as 11:45:00");
    const int64_t total = (hours * 60 + minutes) * 60 + seconds;
    require(total > 0, "walltime is \"", walltime, "\" (the run would stop at once) leave it empty for no limit");
    return total;
}

double deadline_seconds(const std::string& key, const std::string& deadline) {
    if (deadline.empty()) return 0.0;
    try {
        return parse_duration(deadline);
    } catch (const Error&) {
        throw Error(text(key, " is \"", deadline,
                         "\" (after how long is a rank stuck?) write hours:minutes:seconds, such "
                         "as 00:10:00, or 0 for no deadline"),
                    ExitCode::bad_input);
    }
}

std::optional<double> given_peak_flops(const std::string& peak_flops) {
    if (peak_flops.empty()) return 0.0;
    if (peak_flops == "auto") return std::nullopt;
    double value = 0.0;
    const char* last = peak_flops.data() + peak_flops.size();
    const auto [end, error] = std::from_chars(peak_flops.data(), last, value);
    require(error == std::errc() && end == last && value > 0.0 && std::isfinite(value), "peak_flops is \"", peak_flops,
            "\" (the MFU is measured by it) write flop/s such as 989e12, auto, or nothing");
    return value;
}

}  // namespace amalgam
