// SPDX-License-Identifier: Apache-2.0
#include "job/yaml_values.h"

#include <charconv>
#include <cmath>

#include "system/error.h"

namespace amalgam {
namespace {

template <class Number>
std::optional<Number> parse_number(const std::string& word) {
    Number value{};
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
    if (error != std::errc() || end != word.data() + word.size()) return std::nullopt;
    return value;
}

}  // namespace

std::optional<double> parse_real(const std::string& word) {
    const auto value = parse_number<double>(word);
    return value && std::isfinite(*value) ? value : std::nullopt;
}

std::optional<int64_t> parse_integer(const std::string& word) {
    if (const auto value = parse_number<int64_t>(word)) return value;
    const auto real = parse_real(word);
    const double exact_up_to = 9007199254740992.0;  // 2^53
    if (!real || *real != std::floor(*real) || std::abs(*real) > exact_up_to) return std::nullopt;
    return static_cast<int64_t>(*real);
}

std::string found(const YAML::Node& node) {
    if (node.IsScalar()) return text('"', node.Scalar(), '"');
    if (node.IsSequence()) return "a list";
    if (node.IsMap()) return "a section";
    return "empty";
}

}  // namespace amalgam
