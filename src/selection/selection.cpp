// SPDX-License-Identifier: Apache-2.0
#include "selection/selection.h"

#include <algorithm>
#include <cmath>
#include <iomanip>
#include <sstream>

#include "job/job_schema.h"
#include "job/job_writer.h"
#include "storage/hdf5.h"
#include "system/error.h"

namespace amalgam {
namespace {

std::string options_text(const SelectJob& select, const SelectionRule& rule) {
    Job job;
    job.select = select;
    std::string words;
    for (const Option& option : rule.options)
        words +=
            text(words.empty() ? "" : ", ", option.name, ": ", yaml_value(job, *find_key("select." + option.name)));
    return words;
}

void write_layers(H5File& file, const std::string& name, const std::vector<int64_t>& layers) {
    const std::vector<int32_t> values(layers.begin(), layers.end());
    const int64_t count = int64_t(values.size());
    file.write(name, {&count, 1}, std::span<const int32_t>(values));
}

/// /curve/NAME of the numbers of a point.
const std::vector<std::pair<const char*, double CurvePoint::*>> curve_numbers = {
    {"kl", &CurvePoint::kl},
    {"recall_kl", &CurvePoint::recall_kl},
    {"recall", &CurvePoint::recall},
    {"cache_bytes", &CurvePoint::cache_bytes}};

/// In files since format 1.2, where it was measured.
constexpr const char* far_kl_of_curve = "/curve/far_kl";

void write_curve(H5File& file, const std::vector<CurvePoint>& curve) {
    std::vector<int64_t> kept;
    for (const CurvePoint& point : curve) kept.push_back(point.kept);
    write_layers(file, "/curve/kept", kept);
    const auto write = [&](const std::string& name, const auto& number) {
        std::vector<double> values;
        for (const CurvePoint& point : curve) values.push_back(number(point));
        file.write(name, std::vector<int64_t>{int64_t(values.size())}, std::span<const double>(values));
    };
    for (const auto& [name, number] : curve_numbers)
        write(std::string("/curve/") + name, [n = number](const CurvePoint& point) { return point.*n; });
    if (curve.front().far_kl) write(far_kl_of_curve, [](const CurvePoint& point) { return point.far_kl.value(); });
}

std::vector<CurvePoint> read_curve(const H5File& file) {
    std::vector<CurvePoint> curve;
    if (!file.has("/curve")) return curve;
    for (const int64_t kept : file.read_integers("/curve/kept")) curve.push_back({.kept = kept});
    const auto read = [&](const std::string& name) {
        auto values = file.read_doubles(name);
        if (values.size() != curve.size())
            throw Error(text(file.path().string(), ": ", name, ": does not fit /curve/kept"), ExitCode::damaged_file);
        return values;
    };
    for (const auto& [name, number] : curve_numbers) {
        const auto values = read(std::string("/curve/") + name);
        for (size_t i = 0; i < values.size(); ++i) curve[i].*number = values[i];
    }
    if (!file.has(far_kl_of_curve)) return curve;
    const auto values = read(far_kl_of_curve);
    for (size_t i = 0; i < values.size(); ++i) curve[i].far_kl = values[i];
    return curve;
}

}  // namespace

Selection select_layers(const SelectJob& job, int64_t layers, const std::string& mixer,
                        const std::vector<ScoredCandidate>& scored) {
    const SelectionRule& rule = selection_rule(job.rule);
    for (const ScoredCandidate& one : scored)
        if (int64_t(one.candidate.layout.size()) != layers)
            throw Error(text("scores: a candidate has ", one.candidate.layout.size(), " layers but the teacher has ",
                             layers, " (they are of another model)"),
                        ExitCode::damaged_file);
    for (const ScoredCandidate& one : scored)
        if (!std::isfinite(one.score))
            throw Error(text("scores: ", describe(one.candidate), " has the score ", one.score,
                             " (a candidate that diverged cannot be ranked); remove scores.h5 to score it again, or "
                             "lower score.optimizer.learning_rate in a run of another name"),
                        ExitCode::diverged);
    const std::vector<int64_t> order = rule.choose(job.options, layers, scored);
    Selection selection{rule.name, options_text(job, rule), order, keep_softmax(layers, mixer, order)};
    if (rule.order == nullptr) return selection;
    std::vector<CurvePoint> curve = curve_of(rule.order(layers, scored), scored);
    if (curve.size() > 2) selection.curve = std::move(curve);
    return selection;
}

void write_selection(const std::filesystem::path& path, const Selection& selection, const Provenance& provenance) {
    write_h5_once(path, [&](H5File& file) {
        file.describe_file("amalgam selection", provenance, 1, 2);
        file.set_attribute("/", "rule", selection.rule);
        file.set_attribute("/", "options", selection.options);
        write_layers(file, "/layers", selection.layers());
        write_layers(file, "/order", selection.order);
        file.write("/layout", selection.layout);
        if (!selection.curve.empty()) write_curve(file, selection.curve);
    });
}

Selection read_selection(const std::filesystem::path& path) {
    const H5File file = H5File::open(path);
    file.expect_filetype("amalgam selection");
    const Selection selection = {file.string_attribute("/", "rule"), file.string_attribute("/", "options"),
                                 file.read_integers("/order"), file.read_strings("/layout"), read_curve(file)};
    if (file.read_integers("/layers") != selection.layers())
        throw Error(text(path.string(), ": /layers and the softmax layers of /layout are not the same"),
                    ExitCode::damaged_file);
    return selection;
}

std::string table_of_curve(const Selection& selection) {
    std::ostringstream out;
    const bool has_far = !selection.curve.empty() && selection.curve.front().far_kl.has_value();
    const bool has_recall = !selection.curve.empty() && std::isfinite(selection.curve.front().recall);
    out << "softmax layers: KL, " << (has_far ? "KL of far context, " : "")
        << (has_recall ? "KL of answers, recall, " : "")
        << "bytes of keys and values a token (before any distillation)";
    for (const CurvePoint& point : selection.curve) {
        const bool chosen = point.kept == int64_t(selection.order.size());
        out << "\n  " << (chosen ? "*" : " ") << std::setw(4) << point.kept << std::fixed << std::setprecision(5)
            << std::setw(11) << point.kl;
        if (has_far) out << std::setw(11) << point.far_kl.value();
        if (has_recall) out << std::setw(11) << point.recall_kl << std::setw(8) << std::setprecision(3) << point.recall;
        out << std::setw(10) << std::setprecision(0) << point.cache_bytes;
    }
    return out.str();
}

std::optional<Selection> selection_in_scores(const std::filesystem::path& scores, const std::string& mixer) {
    const H5File file = H5File::open(scores);
    if (!file.has("/selection/layers")) return std::nullopt;
    const int64_t layers = file.integer_attribute("/selection", "number_of_layers");
    const auto kept = file.read_integers("/selection/layers");
    for (const int64_t layer : kept)
        if (layer < 0 || layer >= layers)
            throw Error(text(scores.string(), ": /selection/layers: names layer ", layer, " of ", layers),
                        ExitCode::damaged_file);
    return Selection{file.string_attribute("/selection", "rule"),
                     "",
                     file.read_integers("/selection/order"),
                     keep_softmax(layers, mixer, kept),
                     {}};
}

}  // namespace amalgam
