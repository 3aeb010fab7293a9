// SPDX-License-Identifier: Apache-2.0
#include "device_profile.h"

#include <torch/csrc/autograd/profiler_kineto.h>

#include <algorithm>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "system/clock.h"

namespace amalgam {
namespace {

struct Share {
    std::string operation;
    int64_t launches = 0;
    double milliseconds = 0.0;
};

/// Milliseconds between the first and the last device work in which none ran, and after what the longest pauses came.
struct Pauses {
    double milliseconds = 0.0;
    std::string longest;
};
Pauses pauses(const std::vector<torch::autograd::profiler::KinetoEvent>& events) {
    std::vector<const torch::autograd::profiler::KinetoEvent*> work;
    for (const auto& event : events)
        if (event.deviceType() == c10::DeviceType::CUDA && !event.isHiddenEvent()) work.push_back(&event);
    std::sort(work.begin(), work.end(), [](auto* a, auto* b) { return a->startNs() < b->startNs(); });
    std::vector<std::pair<double, std::string>> all;
    Pauses result;
    uint64_t end = work.empty() ? 0 : work[0]->startNs();
    std::string last;
    for (const auto* event : work) {
        if (event->startNs() > end) {
            const double pause = 1e-6 * double(event->startNs() - end);
            result.milliseconds += pause;
            all.emplace_back(pause, last.substr(0, 60));
        }
        if (event->endNs() >= end) last = event->name();
        end = std::max<uint64_t>(end, event->endNs());
    }
    std::sort(all.rbegin(), all.rend());
    std::ostringstream longest;
    for (size_t i = 0; i < all.size() && i < 6; ++i)
        longest << "pause," << all[i].first << ",after " << all[i].second << '\n';
    result.longest = longest.str();
    return result;
}

/// Milliseconds in which collectives ran, and those of them in which nothing else did.
struct Collectives {
    double milliseconds = 0.0, alone = 0.0;
};
Collectives collectives(const std::vector<torch::autograd::profiler::KinetoEvent>& events) {
    struct Edge {
        uint64_t time;
        int collectives, others;  // begun less ended
    };
    std::vector<Edge> edges;
    for (const auto& event : events) {
        if (event.deviceType() != c10::DeviceType::CUDA || event.isHiddenEvent()) continue;
        const bool collective = event.name().find("nccl") != std::string::npos;
        edges.push_back({uint64_t(event.startNs()), collective, !collective});
        edges.push_back({uint64_t(event.endNs()), -int(collective), -int(!collective)});
    }
    std::sort(edges.begin(), edges.end(), [](const Edge& a, const Edge& b) { return a.time < b.time; });
    Collectives result;
    int running = 0, others = 0;
    for (size_t i = 0; i + 1 < edges.size(); ++i) {
        running += edges[i].collectives;
        others += edges[i].others;
        const double milliseconds = 1e-6 * double(edges[i + 1].time - edges[i].time);
        if (running > 0) result.milliseconds += milliseconds;
        if (running > 0 && others == 0) result.alone += milliseconds;
    }
    return result;
}

/// Device work under the name of the operation that launched it.
std::vector<Share> by_operation(const std::vector<torch::autograd::profiler::KinetoEvent>& events) {
    std::map<uint64_t, std::string> operations;  // of the host, by correlation
    for (const auto& event : events)
        if (event.deviceType() == c10::DeviceType::CPU && event.correlationId() != 0)
            operations[event.correlationId()] = event.name();
    std::map<std::string, Share> shares;
    for (const auto& event : events) {
        if (event.deviceType() != c10::DeviceType::CUDA || event.isHiddenEvent()) continue;
        const auto found = operations.find(event.linkedCorrelationId());
        const std::string name = found == operations.end() ? event.name() : found->second;
        Share& share = shares[name];
        share.operation = name;
        ++share.launches;
        share.milliseconds += 1e-6 * double(event.durationNs());
    }
    std::vector<Share> sorted;
    for (const auto& [name, share] : shares) sorted.push_back(share);
    std::sort(sorted.begin(), sorted.end(),
              [](const Share& a, const Share& b) { return a.milliseconds > b.milliseconds; });
    return sorted;
}

}  // namespace

void print_device_profile(const std::function<void()>& work, int64_t rows, std::ostream& out) {
    using namespace torch::profiler::impl;
    const ProfilerConfig config(ProfilerState::KINETO);
    const std::set<ActivityType> activities = {ActivityType::CPU, ActivityType::CUDA};
    torch::autograd::profiler::prepareProfiler(config, activities);
    torch::autograd::profiler::enableProfiler(config, activities, {at::RecordScope::FUNCTION});
    const Stopwatch watch;
    work();
    const double wall = 1e3 * watch.seconds();
    const auto result = torch::autograd::profiler::disableProfiler();

    const auto shares = by_operation(result->events());
    Share all;
    for (const Share& share : shares) {
        all.launches += share.launches;
        all.milliseconds += share.milliseconds;
    }
    const Pauses idle = pauses(result->events());
    const Collectives communication = collectives(result->events());
    out << "wall_ms,device_ms,launches,idle_share,pauses_ms,collectives_ms,collectives_alone_ms\n"
        << wall << ',' << all.milliseconds << ',' << all.launches << ',' << 1.0 - all.milliseconds / wall << ','
        << idle.milliseconds << ',' << communication.milliseconds << ',' << communication.alone << '\n'
        << idle.longest << "operation,launches,device_ms,share\n";
    for (size_t i = 0; i < shares.size() && int64_t(i) < rows; ++i)
        out << shares[i].operation << ',' << shares[i].launches << ',' << shares[i].milliseconds << ','
            << shares[i].milliseconds / all.milliseconds << '\n';
}

}  // namespace amalgam
