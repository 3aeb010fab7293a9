// SPDX-License-Identifier: Apache-2.0
// scores.h5 and the candidates' own files, candidates/candidate-NNN.h5. A candidate's file is written when it is done,
// so a run that is started again skips it; scores.h5 is made of all of them. Layouts in outputs/README.md.
#pragma once

#include <filesystem>
#include <optional>

#include "selection/rules.h"
#include "system/provenance.h"
#include "training/metrics.h"

namespace amalgam {

/// What the race knows of one candidate.
struct CandidateResult {
    int64_t candidate = 0;
    int64_t layer = 0;                     // restored to softmax
    std::vector<int64_t> measured_tokens;  // training tokens seen at each held-out measurement
    std::vector<std::vector<double>> kl;   // [measurement][held-out sequence], nat/token
    std::vector<double> train_loss;        // of every step
    double seconds = 0.0;
    int64_t rank = 0;                 // first world rank of its group
    std::vector<StepMetrics> logged;  // its rows of metrics.csv (in its own file only)

    double score() const;  // minus the mean KL at the last measurement
};

void write_candidate(const std::filesystem::path& path, const CandidateResult& result, const Provenance& provenance);
CandidateResult read_candidate(const std::filesystem::path& path);

struct ScoreTable {
    std::vector<CandidateResult> candidates;  // by candidate number; empty where nothing was scored
    std::vector<double> all_linear_kl;        // of each held-out sequence, before any distillation
    std::optional<Selection> selection;
    int64_t layers = 0;

    /// By layer. Throws Error if a layer was not scored.
    std::vector<double> scores_by_layer() const;
};

void write_scores(const std::filesystem::path& path, const ScoreTable& table, const Provenance& provenance);
ScoreTable read_scores(const std::filesystem::path& path);

}  // namespace amalgam
