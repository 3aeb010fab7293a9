// SPDX-License-Identifier: Apache-2.0
#include "selection/score_file.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <set>

#include "evaluation/statistics.h"
#include "storage/hdf5.h"
#include "system/error.h"
#include "system/finite.h"

namespace amalgam {
namespace {

using Shape = std::vector<int64_t>;

constexpr int32_t newest_version = 2, candidate_minor_version = 1,  // may have far_kl and /measured_share
    scores_minor_version = 3;  // 2.1 may have gates, 2.2 far_kl and /measured_share, 2.3 gates without kl
const std::string numbers_group = "/numbers", samples_group = "/samples", far_kl = "far_kl";

/// Consecutive pieces of `width` values.
std::vector<std::vector<double>> in_rows(const std::vector<double>& flat, size_t first, size_t count, size_t width) {
    std::vector<std::vector<double>> rows;
    for (size_t r = 0; r < count; ++r) {
        const auto begin = flat.begin() + std::ptrdiff_t((first + r) * width);
        rows.emplace_back(begin, begin + std::ptrdiff_t(width));
    }
    return rows;
}

void write_doubles(H5File& file, const std::string& name, const Shape& shape, const std::vector<double>& values) {
    file.write(name, shape, std::span<const double>(values));
}

void write_integers(H5File& file, const std::string& name, const std::vector<int64_t>& values) {
    file.write(name, Shape{int64_t(values.size())}, std::span<const int64_t>(values));
}

void write_small_integers(H5File& file, const std::string& name, const std::vector<int64_t>& wide) {
    const std::vector<int32_t> values(wide.begin(), wide.end());
    file.write(name, Shape{int64_t(values.size())}, std::span<const int32_t>(values));
}

/// Which layouts were measured: /layout, /mixer, /numbers/NAME; /layer for people where every candidate has just one.
void write_layouts(H5File& file, const std::vector<CandidateResult>& all) {
    std::set<std::string> mixers, numbers;
    std::vector<int64_t> layers;
    for (const CandidateResult& r : all) {
        mixers.insert(r.candidate.layout.begin(), r.candidate.layout.end());
        for (const auto& [name, value] : r.candidate.numbers) numbers.insert(name);
        if (const auto layer = restored_layer(r.candidate)) layers.push_back(*layer);
    }
    const std::vector<std::string> names(mixers.begin(), mixers.end());
    std::vector<int32_t> indices;
    for (const CandidateResult& r : all)
        for (const std::string& mixer : r.candidate.layout)
            indices.push_back(int32_t(std::lower_bound(names.begin(), names.end(), mixer) - names.begin()));
    file.write("/mixer", names);
    file.write("/layout", Shape{int64_t(all.size()), int64_t(all[0].candidate.layout.size())},
               std::span<const int32_t>(indices));
    if (layers.size() == all.size()) write_small_integers(file, "/layer", layers);
    for (const std::string& name : numbers) {
        std::vector<double> values;
        for (const CandidateResult& r : all) {
            const auto found = r.candidate.numbers.find(name);
            values.push_back(found == r.candidate.numbers.end() ? std::numeric_limits<double>::quiet_NaN()
                                                                : found->second);
        }
        write_doubles(file, numbers_group + "/" + name, {int64_t(all.size())}, values);
    }
}

/// One for each row of /layout.
std::vector<Candidate> read_layouts(const H5File& file) {
    const auto damaged = [&](const std::string& problem) {
        return Error(text(file.path().string(), ": ", problem), ExitCode::damaged_file);
    };
    const Shape shape = file.describe("/layout").shape;
    if (shape.size() != 2) throw damaged("/layout: is not a table of candidates by layers");
    const auto mixers = file.read_strings("/mixer");
    const auto indices = file.read_integers("/layout");
    std::vector<Candidate> all(static_cast<size_t>(shape[0]));
    for (size_t i = 0; i < indices.size(); ++i) {
        if (indices[i] < 0 || indices[i] >= int64_t(mixers.size()))
            throw damaged(text("/layout: names mixer ", indices[i], " but /mixer has ", mixers.size()));
        all[i / size_t(shape[1])].layout.push_back(mixers[size_t(indices[i])]);
    }
    if (!file.has(numbers_group)) return all;
    for (const DatasetInfo& dataset : file.list(numbers_group)) {
        const auto values = file.read_doubles(dataset.path);
        if (values.size() != all.size()) throw damaged(dataset.path + ": has another number of candidates");
        for (size_t c = 0; c < all.size(); ++c)
            if (!std::isnan(values[c])) all[c].numbers[dataset.path.substr(numbers_group.size() + 1)] = values[c];
    }
    return all;
}

/// The datasets of one candidate or of all: a candidate's own file is a table of one.
void write_candidates(H5File& file, const std::vector<CandidateResult>& all) {
    const int64_t c = int64_t(all.size()), m = int64_t(all[0].kl.size()), s = int64_t(all[0].kl[0].size());
    std::vector<int64_t> candidate, rank;
    std::vector<double> kl, mean, error, loss, score, score_error, seconds;
    for (const CandidateResult& r : all) {
        candidate.push_back(r.number);
        rank.push_back(r.rank);
        seconds.push_back(r.seconds);
        for (const auto& row : r.kl) {
            const auto statistics = mean_and_error(row);
            kl.insert(kl.end(), row.begin(), row.end());
            mean.push_back(statistics.mean);
            error.push_back(statistics.standard_error);
        }
        loss.insert(loss.end(), r.train_loss.begin(), r.train_loss.end());
        score.push_back(r.score());
        score_error.push_back(r.score_error());
    }
    write_small_integers(file, "/candidate", candidate);
    write_layouts(file, all);
    write_integers(file, "/checkpoint_tokens", all[0].measured_tokens);
    std::vector<int64_t> sequence;
    for (int64_t i = 0; i < s; ++i) sequence.push_back(i);
    write_integers(file, "/sequence", sequence);
    write_doubles(file, "/kl", {c, m, s}, kl);
    write_doubles(file, "/kl_mean", {c, m}, mean);
    write_doubles(file, "/kl_standard_error", {c, m}, error);
    write_doubles(file, "/train_loss", {c, int64_t(all[0].train_loss.size())}, loss);
    write_doubles(file, "/score", {c}, score);
    write_doubles(file, "/score_standard_error", {c}, score_error);
    write_doubles(file, "/seconds", {c}, seconds);
    write_small_integers(file, "/rank", rank);
    if (!all[0].samples.empty()) write_doubles(file, "/recall_weight", {1}, {all[0].recall_weight});
    if (all[0].samples.contains(far_kl)) write_doubles(file, "/far_weight", {1}, {all[0].far_weight});
    if (!all[0].samples.empty()) {
        std::vector<double> measured;
        for (const CandidateResult& r : all) measured.push_back(r.measured_share);
        write_doubles(file, "/measured_share", {c}, measured);
    }
    for (const auto& [name, of_first] : all[0].samples) {
        std::vector<double> values;
        for (const CandidateResult& r : all) {
            const auto& own = r.samples.at(name);
            values.insert(values.end(), own.begin(), own.end());
        }
        write_doubles(file, samples_group + "/" + name, {c, int64_t(of_first.size())}, values);
    }
    for (const char* name : {"/kl", "/kl_mean", "/kl_standard_error"}) {
        file.set_attribute(name, "unit", std::string("nat/token"));
        file.attach_scale(name, 0, "/candidate");
        file.attach_scale(name, 1, "/checkpoint_tokens");
    }
    file.attach_scale("/kl", 2, "/sequence");
    file.attach_scale("/score", 0, "/candidate");
    file.set_attribute("/score", "unit", std::string("nat/token"));
    file.set_attribute("/seconds", "unit", std::string("s"));
}

constexpr const char* metrics_name = "/metrics";
constexpr size_t metrics_columns = 8;

void write_metrics(H5File& file, const std::vector<StepMetrics>& rows) {
    if (rows.empty()) return;
    std::vector<double> values;
    for (const StepMetrics& m : rows)
        values.insert(values.end(), {double(m.step), double(m.tokens), m.losses.at(0), m.gradient_norm, m.learning_rate,
                                     m.tokens_per_second, m.memory_gib, double(m.skipped_updates)});
    write_doubles(file, metrics_name, {int64_t(rows.size()), int64_t(metrics_columns)}, values);
    file.set_attribute(
        metrics_name, "columns",
        std::string("step,tokens,loss,gradient_norm,learning_rate,tokens_per_second,memory_gib,skipped_updates"));
}

std::vector<StepMetrics> read_metrics(const H5File& file, int64_t candidate) {
    std::vector<StepMetrics> rows;
    if (!file.has(metrics_name)) return rows;
    const auto shape = file.describe(metrics_name).shape;
    if (shape.size() != 2 || shape[1] != int64_t(metrics_columns))
        throw Error(text(file.path().string(), ": ", metrics_name, ": is not a table of ", metrics_columns, " columns"),
                    ExitCode::damaged_file);
    const auto values = file.read_doubles(metrics_name);
    for (size_t i = 0; i < values.size(); i += metrics_columns) {
        StepMetrics m;
        m.stage = "score";
        m.candidate = candidate;
        m.step = int64_t(values[i]);
        m.tokens = int64_t(values[i + 1]);
        m.losses = {values[i + 2]};
        m.gradient_norm = values[i + 3];
        m.learning_rate = values[i + 4];
        m.tokens_per_second = values[i + 5];
        m.memory_gib = values[i + 6];
        m.skipped_updates = int64_t(values[i + 7]);
        rows.push_back(m);
    }
    return rows;
}

void read_samples(const H5File& file, std::vector<CandidateResult>& all) {
    if (!file.has(samples_group)) return;
    const double weight = file.read_doubles("/recall_weight").at(0);
    const double far_weight = file.has("/far_weight") ? file.read_doubles("/far_weight").at(0) : 0.0;
    for (CandidateResult& r : all) {
        r.recall_weight = weight;
        r.far_weight = far_weight;
    }
    if (file.has("/measured_share")) {
        const auto measured = file.read_doubles("/measured_share");
        if (measured.size() != all.size())
            throw Error(text(file.path().string(), ": /measured_share: has another number of candidates"),
                        ExitCode::damaged_file);
        for (size_t c = 0; c < all.size(); ++c) all[c].measured_share = measured[c];
    }
    for (const DatasetInfo& dataset : file.list(samples_group)) {
        const auto values = file.read_doubles(dataset.path);
        if (dataset.shape.size() != 2 || dataset.shape[0] != int64_t(all.size()))
            throw Error(text(file.path().string(), ": ", dataset.path, ": has another number of candidates"),
                        ExitCode::damaged_file);
        const std::string name = dataset.path.substr(samples_group.size() + 1);
        for (size_t c = 0; c < all.size(); ++c)
            all[c].samples[name] = in_rows(values, c, 1, size_t(dataset.shape[1]))[0];
    }
}

/// `version_1`: the layout of a candidate in a file that has its restored layer instead.
std::vector<CandidateResult> read_candidates(const H5File& file, const std::function<Layout(int64_t)>& version_1) {
    const Shape shape = file.describe("/kl").shape, loss_shape = file.describe("/train_loss").shape;
    const auto fit_together = [&](bool right, const char* dataset) {
        if (right) return;
        throw Error(text(file.path().string(), ": ", dataset, ": does not fit the other datasets"),
                    ExitCode::damaged_file);
    };
    fit_together(shape.size() == 3 && shape[1] > 0 && shape[2] > 0, "/kl");
    fit_together(loss_shape.size() == 2 && loss_shape[0] == shape[0], "/train_loss");
    const size_t measurements = size_t(shape[1]), sequences = size_t(shape[2]), steps = size_t(loss_shape[1]);
    const auto number = file.read_integers("/candidate"), rank = file.read_integers("/rank");
    const auto tokens = file.read_integers("/checkpoint_tokens");
    const auto kl = file.read_doubles("/kl"), loss = file.read_doubles("/train_loss"),
               seconds = file.read_doubles("/seconds");
    std::vector<Candidate> candidates;
    if (file.has("/layout"))
        candidates = read_layouts(file);
    else
        for (const int64_t layer : file.read_integers("/layer")) candidates.push_back({version_1(layer), {}});
    const auto count = size_t(shape[0]);
    fit_together(candidates.size() == count, file.has("/layout") ? "/layout" : "/layer");
    fit_together(number.size() == count, "/candidate");
    fit_together(rank.size() == count, "/rank");
    fit_together(seconds.size() == count, "/seconds");
    fit_together(tokens.size() == measurements, "/checkpoint_tokens");
    std::vector<CandidateResult> all;
    for (size_t c = 0; c < count; ++c)
        all.push_back({number[c],
                       candidates[c],
                       tokens,
                       in_rows(kl, c * measurements, measurements, sequences),
                       in_rows(loss, c, 1, steps)[0],
                       {},
                       0.0,
                       0.0,
                       1.0,
                       seconds[c],
                       rank[c],
                       {}});
    read_samples(file, all);
    return all;
}

/// What the score takes off for the text, of each held-out sequence.
std::vector<double> cost_of_text(const CandidateResult& result) {
    std::vector<double> cost = result.kl.back();
    if (const auto far = result.samples.find(far_kl); far != result.samples.end())
        for (size_t i = 0; i < cost.size(); ++i) cost[i] += result.far_weight * far->second.at(i);
    return cost;
}

}  // namespace

double CandidateResult::score() const {
    const double text = mean_and_error(cost_of_text(*this)).mean;
    const auto recall = samples.find("recall_kl");
    const double cost = recall == samples.end() ? text : text + recall_weight * mean_and_error(recall->second).mean;
    return 0.0 - cost;  // of a cost of 0 it is 0, where -cost would be -0
}

double CandidateResult::score_error() const {
    const double text = mean_and_error(cost_of_text(*this)).standard_error;
    const auto recall = samples.find("recall_kl");
    if (recall == samples.end()) return text;
    return std::hypot(text, recall_weight * mean_and_error(recall->second).standard_error);
}

std::map<std::string, double> CandidateResult::measured() const {
    std::map<std::string, double> means = {{"kl", mean_and_error(kl.back()).mean}};
    for (const auto& [name, values] : samples) means[name] = mean_and_error(values).mean;
    return means;
}

bool CandidateResult::is_finite() const {
    return std::isfinite(score()) &&
           std::all_of(kl.begin(), kl.end(), [](const std::vector<double>& row) { return all_finite(row); });
}

void write_candidate(const std::filesystem::path& path, const CandidateResult& result, const Provenance& provenance) {
    if (!result.is_finite())
        throw Error(text(path.string(), ": the held-out KL of candidate ", result.number,
                         " is not finite (it diverged, and cannot be ranked)"),
                    ExitCode::diverged);
    write_h5_once(path, [&](H5File& file) {
        file.describe_file("amalgam candidate", provenance, newest_version, candidate_minor_version);
        write_candidates(file, {result});
        write_metrics(file, result.logged);
    });
}

CandidateResult read_candidate(const std::filesystem::path& path, const Candidate& expected) {
    const H5File file = H5File::open(path);
    file.expect_filetype("amalgam candidate", newest_version);
    const auto layout_of = [&](int64_t layer) {
        return restored_layer(expected) == layer ? expected.layout : Layout();
    };
    CandidateResult result = read_candidates(file, layout_of).at(0);
    result.logged = read_metrics(file, result.number);
    return result;
}

std::vector<ScoredCandidate> ScoreTable::scored() const {
    std::vector<ScoredCandidate> all;
    for (const CandidateResult& r : candidates) all.push_back({r.candidate, r.score(), r.measured()});
    return all;
}

void write_scores(const std::filesystem::path& path, const ScoreTable& table, const Provenance& provenance) {
    write_h5_once(path, [&](H5File& file) {
        file.describe_file("amalgam scores", provenance, newest_version, scores_minor_version);
        write_candidates(file, table.candidates);
        write_doubles(file, "/all_linear_kl", {int64_t(table.all_linear_kl.size())}, table.all_linear_kl);
        if (table.gates) write_course(file, *table.gates);
    });
}

ScoreTable read_scores(const std::filesystem::path& path, const std::string& mixer) {
    const H5File file = H5File::open(path);
    file.expect_filetype("amalgam scores", newest_version);
    ScoreTable table;
    if (!file.has("/kl")) return table;  // version 1 kept the selection of other rules here
    table.candidates = read_candidates(file, [&](int64_t layer) {
        const int64_t layers = file.integer_attribute("/", "number_of_layers");
        if (layer < 0 || layer >= layers)
            throw Error(text(path.string(), ": /layer: names layer ", layer, " of ", layers), ExitCode::damaged_file);
        return keep_softmax(layers, mixer, {layer});
    });
    table.all_linear_kl = file.read_doubles("/all_linear_kl");
    table.gates = read_course(file);
    return table;
}

}  // namespace amalgam
