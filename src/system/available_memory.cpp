// SPDX-License-Identifier: Apache-2.0
#include "system/available_memory.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <optional>
#include <string>

namespace amalgam {
namespace {

/// The number in a file that holds nothing else; none if it holds a word ("max": no limit) or is not there.
std::optional<int64_t> number_in(const std::string& path) {
    std::ifstream stream(path);
    int64_t value = 0;
    if (!(stream >> value)) return std::nullopt;
    return value;
}

int64_t of_the_machine() {
    std::ifstream stream("/proc/meminfo");
    std::string name, unit;
    for (int64_t value = 0; stream >> name >> value; std::getline(stream, unit))
        if (name == "MemAvailable:") return value * 1024;
    return 0;
}

/// Left below the limits of the control groups (version 2) that this process is in.
int64_t of_the_control_groups() {
    int64_t least = std::numeric_limits<int64_t>::max();
    std::ifstream stream("/proc/self/cgroup");
    std::string line;
    while (std::getline(stream, line)) {
        if (!line.starts_with("0::")) continue;
        for (std::string group = line.substr(3);; group.resize(group.rfind('/'))) {
            const std::string folder = "/sys/fs/cgroup" + group;
            const auto limit = number_in(folder + "/memory.max"), used = number_in(folder + "/memory.current");
            if (limit && used) least = std::min(least, std::max<int64_t>(0, *limit - *used));
            if (group.find('/') == std::string::npos) break;
        }
    }
    return least;
}

}  // namespace

int64_t available_memory() {
    return std::min(of_the_machine(), of_the_control_groups());
}

}  // namespace amalgam
