// SPDX-License-Identifier: Apache-2.0
// scores.h5 and the candidates' own files, candidates/candidate-NNN.h5. A candidate's file is written when it is done,
// so a run that is started again skips it; scores.h5 is made of all of them, once. Contents in outputs/README.md.
//
// Files of version 1 hold the restored layer instead of a layout, and are still read; their scores.h5 may hold the
// selection too (selection.h).
#pragma once

#include <filesystem>
#include <map>

#include "rules/candidate.h"
#include "selection/gate_course.h"
#include "system/provenance.h"
#include "training/metrics.h"

namespace amalgam {

/// What the race knows of one candidate.
struct CandidateResult {
    int64_t number = 0;
    Candidate candidate;
    std::vector<int64_t> measured_tokens;                // training tokens seen at each held-out measurement
    std::vector<std::vector<double>> kl;                 // [measurement][held-out sequence], nat/token
    std::vector<double> train_loss;                      // of every step; empty: it was measured without training
    std::map<std::string, std::vector<double>> samples;  // what else was measured at the end, by name (probe.h)
    double recall_weight = 0.0;                          // of samples "recall_kl" in the score
    double far_weight = 0.0;                             // of samples "far_kl"
    double measured_share = 1.0;                         // share of the held-out tokens; of what is left samples are
                                                         // filled in (early_exit.h)
    double seconds = 0.0;
    int64_t rank = 0;                 // first world rank of its group
    std::vector<StepMetrics> logged;  // its rows of metrics.csv (in its own file only)

    /// Minus the mean KL at the last measurement, recall_weight times that of the answers and far_weight times that on
    /// tokens that need far context, nat/token.
    double score() const;
    /// Its standard error. KL and far KL are of the same sequences: their errors are not independent.
    double score_error() const;
    /// Means of "kl" at the last measurement and of all samples.
    std::map<std::string, double> measured() const;
    /// Can it be ranked? A candidate whose training diverged cannot.
    bool is_finite() const;
};

/// Throws Error(storage), and Error(diverged) for a result that is not finite.
void write_candidate(const std::filesystem::path& path, const CandidateResult& result, const Provenance& provenance);

/// `expected`: what the run has under this number. The layout of a file of version 1 is taken from there if it restores
/// the file's layer, and is empty if not. Throws Error(damaged_file).
CandidateResult read_candidate(const std::filesystem::path& path, const Candidate& expected);

struct ScoreTable {
    std::vector<CandidateResult> candidates;  // by number; empty only in files of version 1, where nothing was scored
    std::vector<double> all_linear_kl;        // of each held-out sequence, before any distillation, nat/token
    std::optional<GateCourse> gates;          // of scorers that train them

    /// The same without how it was measured.
    std::vector<ScoredCandidate> scored() const;
};

/// At least one candidate, all layouts of the same length, all measured alike.
void write_scores(const std::filesystem::path& path, const ScoreTable& table, const Provenance& provenance);

/// `mixer`: of the linear layers in the layouts of a file of version 1, which does not say. Throws Error(damaged_file).
ScoreTable read_scores(const std::filesystem::path& path, const std::string& mixer = "linear");

}  // namespace amalgam
