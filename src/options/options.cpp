// SPDX-License-Identifier: Apache-2.0
#include "options/options.h"

#include <stdexcept>

#include "system/error.h"

namespace amalgam {

bool Range::contains(double value) const {
    const bool above_low = low_excluded ? value > low : value >= low;
    const bool below_high = high_excluded ? value < high : value <= high;
    return above_low && below_high;
}

std::string Range::describe() const {
    const bool has_low = low != -std::numeric_limits<double>::infinity();
    const bool has_high = high != std::numeric_limits<double>::infinity();
    const std::string lower = text(low_excluded ? "above " : "at least ", low);
    const std::string upper = text(high_excluded ? "below " : "at most ", high);
    if (has_low && has_high) return lower + " and " + upper;
    if (has_low) return lower;
    return has_high ? upper : "";
}

Options default_values(const std::vector<Option>& declared) {
    Options values;
    for (const Option& one : declared) values[one.name] = one.default_value;
    return values;
}

template <class Value>
const Value& option(const Options& options, const std::string& name) {
    const auto found = options.find(name);
    if (found == options.end()) throw std::logic_error("option " + name + " is not there");
    const auto* value = std::get_if<Value>(&found->second);
    if (value == nullptr) throw std::logic_error("option " + name + " is of another type");
    return *value;
}

template const bool& option(const Options&, const std::string&);
template const int64_t& option(const Options&, const std::string&);
template const double& option(const Options&, const std::string&);
template const std::string& option(const Options&, const std::string&);
template const std::vector<int64_t>& option(const Options&, const std::string&);

}  // namespace amalgam
