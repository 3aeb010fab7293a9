// SPDX-License-Identifier: Apache-2.0
// What lets a candidate that was stopped go on in a later start: beside its file-to-be candidate-NNN.h5 lie
// stopped-NNN-STEP.h5, a checkpoint with moments, and stopped-NNN-STEP-measured.h5, its result so far. Both are
// there, whole and of one step, or the candidate begins from its beginning.
#pragma once

#include "checkpoints/stage_checkpoints.h"
#include "selection/score_file.h"

namespace amalgam {

class CandidateState {
  public:
    explicit CandidateState(const std::filesystem::path& candidate_file);

    const StageCheckpoints& checkpoints() const { return checkpoints_; }
    /// The result at the step of the latest checkpoint. What does not fit to `number` and `candidate`, or is damaged,
    /// is removed with a warning. Serial.
    std::optional<CandidateResult> read(int64_t number, const Candidate& candidate) const;
    /// To be followed by the checkpoint of the same step. Serial. Throws Error(storage, diverged).
    void write_measured(const CandidateResult& result, const Provenance& provenance) const;
    /// Removes all but the state at `step`; 0: all. Serial.
    void keep_only(int64_t step) const;

  private:
    std::filesystem::path measured_at(int64_t step) const;

    std::filesystem::path folder_;
    StageCheckpoints checkpoints_;
};

}  // namespace amalgam
