// SPDX-License-Identifier: Apache-2.0
#include "evaluation/evaluation_file.h"

#include <algorithm>
#include <cmath>

#include "evaluation/recall_file.h"
#include "evaluation/statistics.h"
#include "storage/hdf5.h"
#include "system/error.h"
#include "system/finite.h"

namespace amalgam {
namespace {

/// Of a [sequences, time] array, the positions that count.
struct Positions {
    const std::vector<double>& values;
    std::vector<bool> count;
    int64_t time;

    /// Of those in [first, last) of row `s`.
    PartOfMean part(int64_t s, int64_t first, int64_t last) const {
        PartOfMean result;
        for (int64_t t = first; t < last; ++t) {
            if (!count[size_t(s * time + t)]) continue;
            result.sum += values[size_t(s * time + t)];
            ++result.count;
        }
        return result;
    }
    /// One for each row.
    std::vector<PartOfMean> parts(int64_t first, int64_t last) const {
        std::vector<PartOfMean> result;
        for (int64_t s = 0; s < int64_t(count.size()) / time; ++s) result.push_back(part(s, first, last));
        return result;
    }
    std::vector<PartOfMean> parts() const { return parts(0, time); }
};

/// Of predictions that have a target.
Positions losses_of(const TokenMeasurements& m, const HeldOutSet& set) {
    return {m.loss, set.predicts(), set.time()};
}

/// Of all tokens. The teacher itself differs nowhere.
std::vector<PartOfMean> kls_of(const TokenMeasurements& m, const HeldOutSet& set, int64_t first, int64_t last) {
    if (m.kl.empty()) return std::vector<PartOfMean>(size_t(set.sequences()), {0.0, last - first});
    return Positions{m.kl, std::vector<bool>(m.kl.size(), true), set.time()}.parts(first, last);
}

/// NaN of a sequence in which nothing is predicted.
void add_means(const std::vector<PartOfMean>& parts, std::vector<double>& means) {
    for (const PartOfMean& part : parts) means.push_back(part.sum / double(part.count));
}

std::vector<int64_t> bin_edges(int64_t time, int64_t bins) {
    std::vector<int64_t> edges;
    for (int64_t b = 0; b <= bins; ++b) {
        const int64_t edge = (time - 1) * b / bins;
        if (edges.empty() || edge > edges.back()) edges.push_back(edge);
    }
    return edges;
}

void write_answers(H5File& file, const std::string& model, const Answers& answers) {
    const std::string group = "/requests/" + model;
    const std::vector<int64_t> count = {int64_t(answers.loglikelihood.size())};
    std::vector<int32_t> generated;
    std::vector<int64_t> offsets = {0};
    for (const auto& tokens : answers.generated) {
        generated.insert(generated.end(), tokens.begin(), tokens.end());
        offsets.push_back(int64_t(generated.size()));
    }
    file.write(group + "/loglikelihood", count, std::span<const double>(answers.loglikelihood));
    file.write(group + "/greedy", count, std::span<const int32_t>(answers.greedy));
    file.write(group + "/generated", std::vector<int64_t>{int64_t(generated.size())},
               std::span<const int32_t>(generated));
    file.write(group + "/generated_offsets", std::vector<int64_t>{int64_t(offsets.size())},
               std::span<const int64_t>(offsets));
    if (!file.has_attribute("/requests", "fingerprint"))
        file.set_attribute("/requests", "fingerprint", answers.fingerprint);
}

/// A model that diverged has not been evaluated.
void expect_finite(const std::filesystem::path& path, const std::string& model, const std::string& what,
                   std::span<const double> values) {
    if (all_finite(values)) return;
    throw Error(text(path.string(), ": the ", what, " of the ", model,
                     " is not finite (the model computes NaN or infinite values, and is neither evaluated nor "
                     "exported); the checkpoint that it comes from is bad: train with a lower learning rate in a run "
                     "of another name, which can take over earlier stages with reuse"),
                ExitCode::diverged);
}

/// Requests for which no model generates are judged, and have a log-likelihood.
void expect_finite_answers(const std::filesystem::path& path, const std::vector<EvaluatedModel>& models) {
    const auto generates = [&](size_t r) {
        return std::any_of(models.begin(), models.end(), [r](const EvaluatedModel& model) {
            return model.answers && !model.answers->generated[r].empty();
        });
    };
    for (const EvaluatedModel& model : models) {
        const size_t requests = model.answers ? model.answers->loglikelihood.size() : 0;
        for (size_t r = 0; r < requests; ++r)
            if (!generates(r))
                expect_finite(path, model.name, "log-likelihood of a request", {&model.answers->loglikelihood[r], 1});
    }
}

}  // namespace

EvaluationSummary summarise(const EvaluatedModel& model, const HeldOutSet& set) {
    EvaluationSummary summary;
    summary.name = model.name;
    const auto loss = mean_and_error(losses_of(model.tokens, set).parts()),
               kl = mean_and_error(kls_of(model.tokens, set, 0, set.time()));
    summary.loss = loss.mean;
    summary.loss_error = loss.standard_error;
    summary.perplexity = std::exp(loss.mean);
    summary.kl = kl.mean;
    summary.kl_error = kl.standard_error;
    double correct = 0.0;
    for (int64_t s = 0; s < set.sequences(); ++s)
        for (int64_t position : set.answers[size_t(s)]) {
            correct += model.tokens.correct[size_t(s * set.time() + position - 1)];
            ++summary.answer_count;
        }
    if (summary.answer_count > 0) summary.answer_accuracy = correct / double(summary.answer_count);
    return summary;
}

void write_evaluation(const std::filesystem::path& path, const std::vector<EvaluatedModel>& models,
                      const HeldOutSet& set, int64_t position_bins, const Layout& student_layout,
                      const Provenance& provenance) {
    const int64_t n = int64_t(models.size()), sequences = set.sequences();
    const auto edges = bin_edges(set.time(), position_bins);
    const int64_t bins = int64_t(edges.size()) - 1;
    std::vector<std::string> names;
    std::vector<double> loss_bins, perplexity_bins, kl_bins, losses, kls, loss, perplexity, kl, loss_error, kl_error,
        accuracy;
    int64_t answers = 0;
    expect_finite_answers(path, models);
    for (const EvaluatedModel& model : models) {
        const EvaluationSummary summary = summarise(model, set);
        expect_finite(path, model.name, "loss", model.tokens.loss);
        expect_finite(path, model.name, "KL", model.tokens.kl);
        expect_finite(path, model.name, "perplexity", {&summary.perplexity, 1});
        if (model.recall) expect_finite(path, model.name, "loss of recalled answers", model.recall->loss);
        names.push_back(model.name);
        const Positions of_loss = losses_of(model.tokens, set);
        for (int64_t b = 0; b < bins; ++b) {
            const int64_t first = edges[size_t(b)], last = edges[size_t(b + 1)];
            loss_bins.push_back(mean_and_error(of_loss.parts(first, last)).mean);
            perplexity_bins.push_back(std::exp(loss_bins.back()));
            if (!std::isnan(loss_bins.back()))  // a range in which nothing is predicted
                expect_finite(path, model.name, "perplexity", {&perplexity_bins.back(), 1});
            kl_bins.push_back(mean_and_error(kls_of(model.tokens, set, first, last)).mean);
        }
        add_means(of_loss.parts(), losses);
        add_means(kls_of(model.tokens, set, 0, set.time()), kls);
        loss.push_back(summary.loss);
        perplexity.push_back(summary.perplexity);
        kl.push_back(summary.kl);
        loss_error.push_back(summary.loss_error);
        kl_error.push_back(summary.kl_error);
        accuracy.push_back(summary.answer_accuracy);
        answers = summary.answer_count;
    }
    write_h5_once(path, [&](H5File& file) {
        using Shape = std::vector<int64_t>;
        file.describe_file("amalgam evaluation", provenance, 1, 2);
        std::string layout;
        for (const auto& name : student_layout) layout += (layout.empty() ? "" : ",") + name;
        file.set_attribute("/", "layout", layout);
        file.write("/model", names);
        file.write("/position_edges", Shape{bins + 1}, std::span<const int64_t>(edges));
        for (const auto& [name, values] : {std::pair{"/loss_by_position", &loss_bins},
                                           {"/perplexity_by_position", &perplexity_bins},
                                           {"/kl_by_position", &kl_bins}})
            file.write(name, Shape{n, bins}, std::span<const double>(*values));
        for (const auto& [name, values] : {std::pair{"/loss_per_sequence", &losses}, {"/kl_per_sequence", &kls}})
            file.write(name, Shape{n, sequences}, std::span<const double>(*values));
        for (const auto& [name, values] : {std::pair{"/loss", &loss},
                                           {"/perplexity", &perplexity},
                                           {"/kl", &kl},
                                           {"/loss_standard_error", &loss_error},
                                           {"/kl_standard_error", &kl_error}})
            file.write(name, Shape{n}, std::span<const double>(*values));
        for (const EvaluatedModel& model : models)
            if (model.answers) write_answers(file, model.name, *model.answers);
        std::vector<const RecallAnswers*> recall;
        for (const EvaluatedModel& model : models)
            if (model.recall) recall.push_back(&*model.recall);
        if (!recall.empty()) write_recall(file, recall);
        if (answers == 0) return;
        file.write("/answer_accuracy", Shape{n}, std::span<const double>(accuracy));
        file.write("/answer_count", Shape{}, std::span<const int64_t>(&answers, 1));
    });
}

void look_through_evaluation(const std::filesystem::path& path) {
    const H5File file = H5File::open(path);
    file.expect_filetype("amalgam evaluation");
    const std::vector<std::string> models = file.read_strings("/model");
    for (const char* name : {"/loss", "/perplexity", "/kl"}) {
        const std::vector<double> values = file.read_doubles(name);
        if (values.size() != models.size())
            throw Error(text(path.string(), ": ", name, ": has ", values.size(), " numbers for ", models.size(),
                             " models (the file is damaged); remove it to have it made again"),
                        ExitCode::damaged_file);
        for (size_t m = 0; m < models.size(); ++m) expect_finite(path, models[m], name + 1, {&values[m], 1});
    }
    for (const DatasetInfo& dataset : file.list("/"))  // the checksums of all of them
        if (dataset.type == StoredType::float64)
            file.read_doubles(dataset.path);
        else
            file.read_integers(dataset.path);
}

}  // namespace amalgam
