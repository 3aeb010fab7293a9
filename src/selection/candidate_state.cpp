// SPDX-License-Identifier: Apache-2.0
#include "selection/candidate_state.h"

#include <algorithm>

#include "system/error.h"
#include "system/log.h"

namespace amalgam {

namespace fs = std::filesystem;

namespace {

/// candidate-003.h5 -> stopped-003.
std::string stage_name(const fs::path& candidate_file) {
    const std::string stem = candidate_file.stem().string();
    return "stopped" + stem.substr(stem.find('-'));
}

}  // namespace

CandidateState::CandidateState(const fs::path& candidate_file)
    : folder_(candidate_file.parent_path()),
      checkpoints_(candidate_file.parent_path(), stage_name(candidate_file), /*keep_last=*/1) {}

fs::path CandidateState::measured_at(int64_t step) const {
    const fs::path checkpoint = checkpoints_.at_step(step);
    return checkpoint.parent_path() / (checkpoint.stem().string() + "-measured.h5");
}

std::optional<CandidateResult> CandidateState::read(int64_t number, const Candidate& candidate) const {
    const auto latest = checkpoints_.latest();
    if (!latest) return std::nullopt;
    try {
        const int64_t step = checkpoints_.open(*latest)->state().step;
        CandidateResult result = read_candidate(measured_at(step), candidate);
        if (result.number == number && result.candidate == candidate && int64_t(result.train_loss.size()) == step)
            return result;
        warn(text(latest->string(), ": is the state of another candidate; candidate ", number,
                  " begins from its beginning"));
    } catch (const std::exception& error) {  // damage has many faces
        warn(text(error.what(), "; candidate ", number, " begins from its beginning"));
    }
    keep_only(0);
    return std::nullopt;
}

void CandidateState::write_measured(const CandidateResult& result, const Provenance& provenance) const {
    write_candidate(measured_at(int64_t(result.train_loss.size())), result, provenance);
}

void CandidateState::keep_only(int64_t step) const {
    const fs::path kept[] = {checkpoints_.at_step(step), measured_at(step)};
    const std::string prefix = checkpoints_.stage() + "-";
    std::error_code ignored;
    for (const auto& entry : fs::directory_iterator(folder_, ignored)) {
        const std::string name = entry.path().filename().string();
        const bool ours = name.starts_with(prefix) && name.ends_with(".h5");
        if (ours && std::find(std::begin(kept), std::end(kept), entry.path()) == std::end(kept))
            fs::remove(entry.path(), ignored);
    }
}

}  // namespace amalgam
