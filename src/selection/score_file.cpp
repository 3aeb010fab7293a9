// SPDX-License-Identifier: Apache-2.0
#include "selection/score_file.h"

#include "evaluation/statistics.h"
#include "storage/hdf5.h"
#include "system/error.h"

namespace amalgam {
namespace {

using Shape = std::vector<int64_t>;

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

/// The datasets of one candidate or of all: a candidate's own file is a table of one.
void write_candidates(H5File& file, const std::vector<CandidateResult>& all) {
    const int64_t c = int64_t(all.size()), m = int64_t(all[0].kl.size()), s = int64_t(all[0].kl[0].size());
    std::vector<int64_t> candidate, layer, rank;
    std::vector<double> kl, mean, error, loss, score, score_error, seconds;
    for (const CandidateResult& r : all) {
        candidate.push_back(r.candidate);
        layer.push_back(r.layer);
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
        score_error.push_back(error.back());
    }
    write_small_integers(file, "/candidate", candidate);
    write_small_integers(file, "/layer", layer);
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

std::vector<CandidateResult> read_candidates(const H5File& file) {
    const auto shape = file.describe("/kl").shape;
    const size_t measurements = size_t(shape.at(1)), sequences = size_t(shape.at(2));
    const size_t steps = size_t(file.describe("/train_loss").shape.at(1));
    const auto candidate = file.read_integers("/candidate"), layer = file.read_integers("/layer"),
               rank = file.read_integers("/rank");
    const auto tokens = file.read_integers("/checkpoint_tokens");
    const auto kl = file.read_doubles("/kl"), loss = file.read_doubles("/train_loss"),
               seconds = file.read_doubles("/seconds");
    std::vector<CandidateResult> all;
    for (size_t c = 0; c < layer.size(); ++c)
        all.push_back({candidate[c],
                       layer[c],
                       tokens,
                       in_rows(kl, c * measurements, measurements, sequences),
                       in_rows(loss, c, 1, steps)[0],
                       seconds[c],
                       rank[c],
                       {}});
    return all;
}

}  // namespace

double CandidateResult::score() const {
    return -mean_and_error(kl.back()).mean;
}

void write_candidate(const std::filesystem::path& path, const CandidateResult& result, const Provenance& provenance) {
    write_h5_once(path, [&](H5File& file) {
        file.describe_file("amalgam candidate", provenance);
        write_candidates(file, {result});
        write_metrics(file, result.logged);
    });
}

CandidateResult read_candidate(const std::filesystem::path& path) {
    const H5File file = H5File::open(path);
    file.expect_filetype("amalgam candidate");
    CandidateResult result = read_candidates(file).at(0);
    result.logged = read_metrics(file, result.candidate);
    return result;
}

std::vector<double> ScoreTable::scores_by_layer() const {
    std::vector<double> scores(size_t(layers), 0.0);
    std::vector<bool> seen(size_t(layers), false);
    for (const CandidateResult& r : candidates) {
        scores.at(size_t(r.layer)) = r.score();
        seen.at(size_t(r.layer)) = true;
    }
    for (size_t l = 0; l < seen.size(); ++l)
        if (!seen[l]) throw Error(text("scores: layer ", l, " was not scored"), ExitCode::damaged_file);
    return scores;
}

void write_scores(const std::filesystem::path& path, const ScoreTable& table, const Provenance& provenance) {
    write_h5_once(path, [&](H5File& file) {
        file.describe_file("amalgam scores", provenance);
        file.set_attribute("/", "number_of_layers", table.layers);
        if (!table.candidates.empty()) {
            write_candidates(file, table.candidates);
            write_doubles(file, "/all_linear_kl", {int64_t(table.all_linear_kl.size())}, table.all_linear_kl);
        }
        if (!table.selection) return;
        write_small_integers(file, "/selection/layers", table.selection->layers);
        write_small_integers(file, "/selection/order", table.selection->order);
        file.set_attribute("/selection", "rule", table.selection->rule);
        file.set_attribute("/selection", "budget", int64_t(table.selection->layers.size()));
        file.set_attribute("/selection", "number_of_layers", table.layers);
        file.set_attribute("/selection", "seed", table.selection->seed);
    });
}

ScoreTable read_scores(const std::filesystem::path& path) {
    const H5File file = H5File::open(path);
    file.expect_filetype("amalgam scores");
    ScoreTable table;
    table.layers = file.integer_attribute("/", "number_of_layers");
    if (file.has("/kl")) {
        table.candidates = read_candidates(file);
        table.all_linear_kl = file.read_doubles("/all_linear_kl");
    }
    if (file.has("/selection/layers")) {
        Selection selection;
        selection.rule = file.string_attribute("/selection", "rule");
        selection.layers = file.read_integers("/selection/layers");
        selection.order = file.read_integers("/selection/order");
        selection.seed = file.integer_attribute("/selection", "seed");
        table.selection = selection;
    }
    return table;
}

}  // namespace amalgam
