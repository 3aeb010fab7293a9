// SPDX-License-Identifier: Apache-2.0
#include "job/job_values.h"

#include <algorithm>
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

std::optional<int64_t> kept_layers(const SelectJob& select, int64_t layers) {
    return selection_rule(select.rule).kept(select.options, layers);
}

int64_t likely_kept_layers(const SelectJob& select, int64_t layers) {
    return kept_layers(select, layers).value_or(layers / 2);
}

int64_t walltime_seconds(const std::string& walltime) {
    if (walltime.empty()) return 0;
    // With fewer numbers nobody can tell whether 11:45 means hours or minutes.
    const bool with_hours = std::count(walltime.begin(), walltime.end(), ':') == 2;
    const std::optional<double> seconds = with_hours ? parse_duration(walltime) : std::nullopt;
    require(seconds.has_value(), "walltime is \"", walltime,
            "\" (after how long shall the run save and stop?) write hours:minutes:seconds, such as 11:45:00");
    require(*seconds > 0, "walltime is \"", walltime, "\" (the run would stop at once) leave it empty for no limit");
    return static_cast<int64_t>(*seconds);
}

double deadline_seconds(const std::string& key, const std::string& deadline) {
    if (deadline.empty()) return 0.0;
    const std::optional<double> seconds = parse_duration(deadline);
    require(seconds.has_value(), key, " is \"", deadline,
            "\" (after how long is a rank stuck?) write hours:minutes:seconds, such as 00:10:00, or 0 for no deadline");
    return *seconds;
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
