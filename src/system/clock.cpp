// SPDX-License-Identifier: Apache-2.0
#include "system/clock.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <vector>

namespace amalgam {

namespace {

bool only_digits(const std::string& field) {
    return !field.empty() && field.size() <= 12 && field.find_first_not_of("0123456789") == std::string::npos;
}

}  // namespace

double seconds_now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::string format_duration(double seconds) {
    if (!std::isfinite(seconds)) return "unknown";  // e.g. the time left before the first step was timed
    const long long whole = std::llround(std::clamp(seconds, 0.0, 1e15));
    const long long hours = whole / 3600, minutes = whole / 60 % 60, rest = whole % 60;
    char buffer[64];
    if (hours > 0)
        std::snprintf(buffer, sizeof buffer, "%lld:%02lld:%02lld", hours, minutes, rest);
    else
        std::snprintf(buffer, sizeof buffer, "%lld:%02lld", minutes, rest);
    return buffer;
}

std::optional<double> parse_duration(const std::string& given) {
    std::vector<std::string> fields(1);
    for (const char c : given) {
        if (c == ':')
            fields.emplace_back();
        else
            fields.back() += c;
    }
    if (fields.size() > 3) return std::nullopt;

    std::string fraction;  // only plain seconds may have one
    const size_t point = fields[0].find('.');
    if (fields.size() == 1 && point != std::string::npos) {
        fraction = fields[0].substr(point + 1);
        fields[0].resize(point);
        if (!only_digits(fraction)) return std::nullopt;
    }

    double seconds = 0;
    for (size_t i = 0; i < fields.size(); ++i) {
        if (!only_digits(fields[i])) return std::nullopt;
        const double value = std::stod(fields[i]);
        if (i > 0 && value >= 60) return std::nullopt;
        seconds = seconds * 60 + value;
    }
    return fraction.empty() ? seconds : seconds + std::stod("0." + fraction);
}

std::string date_now() {
    const std::time_t now = std::time(nullptr);
    std::tm local{};
    localtime_r(&now, &local);
    char date[64];
    std::strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S%z", &local);
    std::string result = date;
    result.insert(result.size() - 2, ":");  // strftime writes +0100, ISO 8601's extended form is +01:00
    return result;
}

}  // namespace amalgam
