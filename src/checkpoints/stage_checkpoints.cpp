// SPDX-License-Identifier: Apache-2.0
#include "checkpoints/stage_checkpoints.h"

#include <algorithm>
#include <charconv>
#include <cinttypes>
#include <cstdio>

#include "system/error.h"

namespace amalgam {
namespace {

/// The step in STAGE-NNNNNNNN.h5; none in other names.
std::optional<int64_t> step_of(const std::filesystem::path& path, const std::string& stage) {
    const std::string stem = path.stem().string();
    if (path.extension() != ".h5" || !stem.starts_with(stage + "-")) return std::nullopt;
    int64_t step = 0;
    const char *begin = stem.data() + stage.size() + 1, *end = stem.data() + stem.size();
    const auto read = std::from_chars(begin, end, step);
    if (read.ec != std::errc() || read.ptr != end) return std::nullopt;
    return step;
}

}  // namespace

StageCheckpoints::StageCheckpoints(std::filesystem::path folder, std::string stage, int64_t keep_last,
                                   int64_t keep_every)
    : folder_(std::move(folder)), stage_(std::move(stage)), keep_last_(keep_last), keep_every_(keep_every) {}

std::filesystem::path StageCheckpoints::finished() const {
    return folder_ / (stage_ + ".h5");
}

bool StageCheckpoints::is_finished() const {
    return std::filesystem::exists(finished());
}

std::filesystem::path StageCheckpoints::at_step(int64_t step) const {
    char number[24];
    std::snprintf(number, sizeof number, "%08" PRId64, step);
    return folder_ / (stage_ + "-" + number + ".h5");
}

std::vector<StageCheckpoints::OnTheWay> StageCheckpoints::on_the_way() const {
    std::vector<OnTheWay> found;
    if (!std::filesystem::exists(folder_)) return found;
    for (const auto& entry : std::filesystem::directory_iterator(folder_))
        if (const auto step = step_of(entry.path(), stage_)) found.push_back({*step, entry.path()});
    std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.step < b.step; });
    return found;
}

std::optional<std::filesystem::path> StageCheckpoints::latest() const {
    const auto found = on_the_way();
    if (found.empty()) return std::nullopt;
    return found.back().path;
}

std::unique_ptr<Checkpoint> StageCheckpoints::open(const std::filesystem::path& path) const {
    auto checkpoint = std::make_unique<Checkpoint>(path);
    const CheckpointState& state = checkpoint->state();
    const auto step = step_of(path, stage_);
    if (state.stage != stage_ || (step && *step != state.step))
        throw Error(text(path.string(), ": holds ", state.stage, " step ", state.step,
                         ", which is not what its name says; were files renamed or swapped?"),
                    ExitCode::damaged_file);
    return checkpoint;
}

void StageCheckpoints::purge() const {
    const auto found = on_the_way();
    const size_t keep = is_finished() ? 0 : size_t(keep_last_);
    for (size_t i = 0; i + keep < found.size(); ++i)
        if (keep_every_ == 0 || found[i].step % keep_every_ != 0) std::filesystem::remove(found[i].path);
}

}  // namespace amalgam
