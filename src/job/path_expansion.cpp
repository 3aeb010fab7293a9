// SPDX-License-Identifier: Apache-2.0
#include "job/path_expansion.h"

#include <cctype>
#include <cstdlib>
#include <filesystem>

#include "system/error.h"

namespace amalgam {
namespace {

bool is_name(char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || c == '_';
}

std::string variable(const std::string& name, const std::string& path, const std::string& where) {
    const char* value = std::getenv(name.c_str());
    require(value != nullptr && *value != '\0', where, " is \"", path, "\" but the environment has no ", name,
            " (the path is unknown without it) export it, or write the path out");
    return value;
}

}  // namespace

std::string expanded_path(const std::string& path, const std::string& where) {
    std::error_code unreadable;
    if (path.empty() || std::filesystem::exists(path, unreadable)) return path;
    std::string result;
    size_t i = 0;
    if (path[0] == '~') {
        require(path.size() == 1 || path[1] == '/', where, " is \"", path,
                "\" (only ~ itself is known here, not the folders of other users) write the path out");
        result = variable("HOME", path, where);
        i = 1;
    }
    while (i < path.size()) {
        const bool braces = path.compare(i, 2, "${") == 0;
        size_t first = i + (braces ? 2 : 1), end = first;
        while (path[i] == '$' && end < path.size() && is_name(path[end])) ++end;
        if (path[i] != '$' || (end == first && !braces)) {
            result += path[i++];
            continue;
        }
        require(!braces || (end > first && end < path.size() && path[end] == '}'), where, " is \"", path,
                "\" (\"${\" is not followed by a name and \"}\") correct it");
        result += variable(path.substr(first, end - first), path, where);
        i = end + (braces ? 1 : 0);
    }
    return result;
}

}  // namespace amalgam
