// SPDX-License-Identifier: Apache-2.0
// Wall-clock time: seconds of a monotonic clock, and durations and dates as people write them.
#pragma once

#include <optional>
#include <string>

namespace amalgam {

/// Seconds since an arbitrary start, monotonic.
double seconds_now();

/// "2:05" (minutes:seconds) below one hour, "1:02:05" above.
std::string format_duration(double seconds);

/// Seconds of "hh:mm:ss", "mm:ss" or plain seconds ("1.5"); nothing for any other text. The first number may be of up
/// to twelve digits.
std::optional<double> parse_duration(const std::string& text);

/// Local date and time, ISO 8601 with zone.
std::string date_now();

class Stopwatch {
  public:
    Stopwatch() : start_(seconds_now()) {}
    double seconds() const { return seconds_now() - start_; }

  private:
    double start_;
};

}  // namespace amalgam
