// SPDX-License-Identifier: Apache-2.0
// What a key says about itself, and which key is nearest to a misspelt one.
#include <algorithm>
#include <limits>

#include "job/job_schema.h"
#include "system/error.h"

namespace amalgam {

std::string JobKey::allowed() const {
    if (choices.empty()) return range.describe();
    std::string list = "one of ";
    for (const std::string& choice : choices) list += (&choice == &choices.front() ? "" : ", ") + choice;
    return list;
}

std::string JobKey::type() const {
    Job job;
    struct TypeName {
        std::string operator()(std::string*) const { return "a text"; }
        std::string operator()(int64_t*) const { return "an integer"; }
        std::string operator()(double*) const { return "a number"; }
        std::string operator()(std::optional<double>*) const { return "a number or auto"; }
        std::string operator()(bool*) const { return "true or false"; }
        std::string operator()(std::vector<int64_t>*) const { return "a list of integers"; }
        std::string operator()(std::vector<std::string>*) const { return "a list of texts"; }
        std::string operator()(std::vector<TrainingPhase>*) const { return "a list of phases"; }
        std::string operator()(const EnumMember&) const { return "a text"; }
    };
    return std::visit(TypeName(), member(job));
}

int64_t edit_distance(const std::string& a, const std::string& b) {
    const size_t rows = a.size() + 1, columns = b.size() + 1;
    std::vector<std::vector<int64_t>> distance(rows, std::vector<int64_t>(columns));
    for (size_t i = 0; i < rows; ++i) distance[i][0] = static_cast<int64_t>(i);
    for (size_t j = 0; j < columns; ++j) distance[0][j] = static_cast<int64_t>(j);
    for (size_t i = 1; i < rows; ++i) {
        for (size_t j = 1; j < columns; ++j) {
            const int64_t replaced = distance[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
            distance[i][j] = std::min({distance[i - 1][j] + 1, distance[i][j - 1] + 1, replaced});
            const bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
            if (swapped) distance[i][j] = std::min(distance[i][j], distance[i - 2][j - 2] + 1);
        }
    }
    return distance.back().back();
}

namespace {

std::string last_part(const std::string& path) {
    const size_t dot = path.rfind('.');
    return dot == std::string::npos ? path : path.substr(dot + 1);
}

std::string parent(const std::string& path) {
    const size_t dot = path.rfind('.');
    return dot == std::string::npos ? "" : path.substr(0, dot);
}

size_t common_prefix(const std::string& a, const std::string& b) {
    return static_cast<size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
}

}  // namespace

Suggestion nearest_key(const std::string& path) {
    Suggestion best;
    int64_t best_distance = std::numeric_limits<int64_t>::max();
    size_t best_prefix = 0;
    const auto consider = [&](const std::string& candidate) {
        // A right name in a wrong section is one mistake, wherever the right section is.
        const int64_t moved =
            edit_distance(last_part(path), last_part(candidate)) + (parent(path) != parent(candidate));
        const int64_t distance = std::min(moved, edit_distance(path, candidate));
        const size_t prefix = common_prefix(path, candidate);
        if (distance < best_distance || (distance == best_distance && prefix > best_prefix)) {
            best.path = candidate;
            best_distance = distance;
            best_prefix = prefix;
        }
    };
    for (const JobKey& key : job_schema()) consider(key.path);
    for (const JobSection& section : job_sections()) consider(section.path);
    best.close = best_distance <= std::max<int64_t>(1, static_cast<int64_t>(last_part(path).size()) / 3);
    return best;
}

}  // namespace amalgam
