// SPDX-License-Identifier: Apache-2.0
#include "generation/stop_strings.h"

#include <algorithm>

namespace amalgam {

std::string_view TokenBytes::of(int32_t token) const {
    if (token < 0 || size_t(token) + 1 >= offsets_.size()) return {};
    const int64_t begin = offsets_[size_t(token)];
    return std::string_view(bytes_).substr(size_t(begin), size_t(offsets_[size_t(token) + 1] - begin));
}

StopStrings::StopStrings(const TokenBytes& bytes, std::vector<std::string> strings)
    : bytes_(&bytes), strings_(std::move(strings)) {
    for (const std::string& string : strings_) longest_ = std::max(longest_, string.size());
}

bool StopStrings::end_with(int32_t token, std::string& before) const {
    if (strings_.empty()) return false;
    before += bytes_->of(token);
    const bool found = std::ranges::any_of(
        strings_, [&](const std::string& string) { return before.find(string) != std::string::npos; });
    if (before.size() >= longest_) before.erase(0, before.size() - (longest_ - 1));
    return found;
}

}  // namespace amalgam
