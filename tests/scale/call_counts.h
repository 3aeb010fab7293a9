// SPDX-License-Identifier: Apache-2.0
// What call_counter.cpp wrote, one file for each rank.
#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>

namespace amalgam::test {

struct CallCount {
    int64_t calls = 0, bytes = 0;
};

/// By name of the call, of all ranks: the most that one of them had, and the sum.
struct CallCounts {
    std::map<std::string, CallCount> most, sum;
    int64_t ranks = 0;
};

/// Files that begin with `prefix` only (of one host).
inline CallCounts read_call_counts(const std::filesystem::path& folder, const std::string& prefix = "") {
    CallCounts counts;
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
        if (!entry.path().filename().string().starts_with(prefix)) continue;
        ++counts.ranks;
        std::ifstream lines(entry.path());
        std::string name;
        for (CallCount one; lines >> name >> one.calls >> one.bytes;) {
            CallCount &most = counts.most[name], &sum = counts.sum[name];
            most = {std::max(most.calls, one.calls), std::max(most.bytes, one.bytes)};
            sum = {sum.calls + one.calls, sum.bytes + one.bytes};
        }
    }
    return counts;
}

}  // namespace amalgam::test
