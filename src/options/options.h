// SPDX-License-Identifier: Apache-2.0
// Job keys that belong to one kind of thing (a mixer, a selection rule): it declares them, a Job stores their values by
// name, and job/job_schema.h reads, checks and prints them like all others.
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <string>
#include <variant>
#include <vector>

namespace amalgam {

/// Allowed numbers (of lists: allowed elements). Both ends belong to it unless they are excluded.
struct Range {
    double low = -std::numeric_limits<double>::infinity();
    double high = std::numeric_limits<double>::infinity();
    bool low_excluded = false;
    bool high_excluded = false;

    bool contains(double value) const;
    std::string describe() const;  // "at least 1", "at least 0 and below 1"; empty if everything is allowed
    bool operator==(const Range&) const = default;
};

using OptionValue = std::variant<bool, int64_t, double, std::string, std::vector<int64_t>>;

struct Option {
    std::string name;                       // the last part of its key
    OptionValue default_value;              // its type is the option's
    std::string unit;                       // "layers"; empty: none
    std::string description;                // one line, for people
    Range range = {};                       // numbers
    std::vector<std::string> choices = {};  // texts; empty: any

    bool operator==(const Option&) const = default;
};

/// Values by name.
using Options = std::map<std::string, OptionValue>;

Options default_values(const std::vector<Option>& declared);

/// The value of an option that must be there, with this type: anything else is a mistake in the program
/// (std::logic_error).
template <class Value>
const Value& option(const Options& options, const std::string& name);

/// The same where it may be missing: `value` then stays as it is.
template <class Value>
void read_option(const Options& options, const std::string& name, Value& value) {
    if (options.contains(name)) value = option<Value>(options, name);
}

}  // namespace amalgam
