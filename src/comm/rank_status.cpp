// SPDX-License-Identifier: Apache-2.0
#include "comm/rank_status.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>

#include "system/error.h"

namespace amalgam {
namespace {

using Answers = std::vector<std::optional<RankStatus>>;

template <size_t size>
void copy(char (&target)[size], const char* source) {
    std::snprintf(target, size, "%s", source);
}

/// "distill, step 12".
std::string place(const RankStatus& status) {
    std::string result = status.stage;
    if (status.candidate >= 0) result += text(" candidate ", status.candidate);
    if (status.step >= 0) result += text(", step ", status.step);
    return result;
}

/// Hosts of the ranks, as far as a rank or the one after it has told.
std::string hosts(const std::vector<int64_t>& ranks, const Answers& answers) {
    std::vector<std::string> names;
    for (const int64_t rank : ranks) {
        std::string name;
        if (answers[size_t(rank)])
            name = answers[size_t(rank)]->host;
        else if (const auto& next = answers[size_t(rank + 1) % answers.size()])
            name = next->previous_host;
        if (!name.empty() && std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
    }
    constexpr size_t most = 8;
    std::string result;
    for (size_t i = 0; i < std::min(most, names.size()); ++i) result += (i ? ", " : "") + names[i];
    if (names.size() > most) result += text(" and ", names.size() - most, " more");
    return result.empty() ? "" : " (" + result + ")";
}

std::string seconds(double value) {
    return text(std::lround(value), " s");
}

}  // namespace

RankStatus make_status(const Activity& activity, double seconds, double deadline) {
    RankStatus status;
    status.candidate = activity.candidate;
    status.step = activity.step;
    status.seconds = seconds;
    status.deadline = deadline;
    status.waits = activity.operation != nullptr;
    copy(status.stage, activity.stage);
    if (status.waits) copy(status.operation, activity.operation);
    return status;
}

std::string diagnosis(const Answers& answers) {
    std::vector<int64_t> silent, stuck;
    bool all_wait = true;                                 // and nobody is silent
    std::map<std::string, std::vector<int64_t>> waiting;  // by what they wait for
    for (size_t r = 0; r < answers.size(); ++r) {
        if (!answers[r]) {
            silent.push_back(int64_t(r));
            all_wait = false;
            continue;
        }
        const RankStatus& status = *answers[r];
        if (!status.waits && status.late()) stuck.push_back(int64_t(r));
        all_wait = all_wait && status.waits && status.late();
        if (status.waits) waiting[text(status.operation, " (", place(status), ")")].push_back(int64_t(r));
    }
    if (silent.empty() && stuck.empty() && !all_wait) return {};

    std::string report = "the ranks do not get on, the job is ended:";
    if (!silent.empty())
        report += text("\n  ", list_ranks(silent), hosts(silent, answers),
                       " gave no answer: stopped, dead or cut off from the network");
    constexpr size_t most_named = 20;
    for (size_t i = 0; i < std::min(most_named, stuck.size()); ++i) {
        const int64_t rank = stuck[i];
        const RankStatus& status = *answers[size_t(rank)];
        report +=
            text("\n  ", list_ranks({rank}), hosts({rank}, answers), " has finished nothing for ",
                 seconds(status.seconds), " (", place(status), "; its deadline is ", seconds(status.deadline), ")");
    }
    if (stuck.size() > most_named) report += text("\n  and so have ", stuck.size() - most_named, " more");
    constexpr size_t most_places = 20;
    size_t shown = 0;
    for (const auto& [what, ranks] : waiting) {
        if (shown++ == most_places) {
            report += text("\n  and ", waiting.size() - most_places, " other places where ranks wait");
            break;
        }
        double longest = 0.0;
        for (const int64_t rank : ranks) longest = std::max(longest, answers[size_t(rank)]->seconds);
        std::vector<int64_t> others;
        for (int64_t r = 0; r < int64_t(answers.size()); ++r)
            if (!std::binary_search(ranks.begin(), ranks.end(), r)) others.push_back(r);
        report += text("\n  ", list_ranks(ranks), ranks.size() == 1 ? " waits in " : " wait in ", what, " for ",
                       seconds(longest));
        if (!others.empty()) report += text("; not there: ", list_ranks(others));
    }
    if (all_wait) report += "\n  every rank waits for another one";
    return report;
}

std::string list_ranks(const std::vector<int64_t>& ranks) {
    constexpr int most = 20;
    std::string result = ranks.size() == 1 ? "rank " : "ranks ";
    int shown = 0;
    for (size_t i = 0; i < ranks.size(); ++shown) {
        size_t last = i;
        while (last + 1 < ranks.size() && ranks[last + 1] == ranks[last] + 1) ++last;
        if (shown == most) return result + text(" and ", ranks.size() - i, " more");
        result += text(shown ? ", " : "", ranks[i]);
        if (last > i) result += text(last == i + 1 ? ", " : "-", ranks[last]);
        i = last + 1;
    }
    return result;
}

}  // namespace amalgam
