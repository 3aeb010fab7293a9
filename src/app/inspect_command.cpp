// SPDX-License-Identifier: Apache-2.0
#include "app/inspect_command.h"

#include <algorithm>
#include <cmath>
#include <iomanip>
#include <iostream>

#include "evaluation/statistics.h"
#include "selection/score_file.h"
#include "selection/selection.h"
#include "storage/hdf5.h"
#include "system/error.h"

namespace amalgam {
namespace {

constexpr const char* root_texts[] = {"filetype", "software_version", "git_sha", "date",   "machine",
                                      "job_id",   "command_line",     "stage",   "layout", "rule",
                                      "options"};
constexpr const char* root_integers[] = {"ranks", "step", "tokens", "data_cursor", "seed"};

const char* name_of(StoredType type) {
    switch (type) {
        case StoredType::float32:
            return "float32";
        case StoredType::float64:
            return "float64";
        case StoredType::bfloat16:
            return "bfloat16";
        case StoredType::int32:
            return "int32";
        case StoredType::int64:
            return "int64";
        case StoredType::uint16:
            return "uint16";
        case StoredType::uint32:
            return "uint32";
    }
    return "?";
}

void print_datasets(const H5File& file) {
    int64_t bytes = 0, count = 0;
    for (const DatasetInfo& dataset : file.list("/")) {
        std::string shape;
        int64_t elements = 1;
        for (int64_t extent : dataset.shape) {
            shape += text(shape.empty() ? "" : ", ", extent);
            elements *= extent;
        }
        std::cout << "  " << std::left << std::setw(64) << dataset.path << ' ' << std::setw(9) << name_of(dataset.type)
                  << '[' << shape << "]\n";
        bytes += elements * int64_t(bytes_of(dataset.type));
        ++count;
    }
    std::cout << count << " datasets, " << bytes << " bytes\n";
}

void print_selection(const Selection& selection) {
    std::cout << "selection (" << selection.rule << "):";
    for (const int64_t layer : selection.layers()) std::cout << ' ' << layer;
    std::cout << '\n';
    if (!selection.curve.empty()) std::cout << table_of_curve(selection) << '\n';
}

void print_gates(const GateCourse& course) {
    std::cout << "gates of the layers, the largest first, after " << course.steps() << " steps of " << course.tokens
              << " tokens in all\n";
    for (const int64_t layer : course.order())
        std::cout << "  layer " << std::setw(3) << std::right << layer << "  " << course.latest()[size_t(layer)]
                  << '\n';
}

void print_scores(const std::string& path) {
    const ScoreTable table = read_scores(path);
    const auto scored = table.scored();
    const auto all = [&](std::optional<int64_t> (*layer_of)(const Candidate&)) {
        return std::all_of(scored.begin(), scored.end(),
                           [&](const ScoredCandidate& one) { return layer_of(one.candidate).has_value(); });
    };
    const bool restored = all(restored_layer), removed = !restored && all(removed_layer);
    std::cout << std::fixed << std::setprecision(5);
    if (table.gates) print_gates(*table.gates);
    if (!scored.empty())
        std::cout << (restored ? "layers by importance (held-out KL to the teacher, nat/token, after restoring softmax "
                                 "there)\n"
                      : removed
                          ? "layers by importance (held-out KL to the teacher, nat/token, without softmax there)\n"
                          : "candidates by importance (held-out KL to the teacher, nat/token)\n");
    for (const size_t place : by_importance(scored)) {
        const CandidateResult& result = table.candidates[place];
        const auto kl = mean_and_error(result.kl.back());
        std::cout << "  " << in_column(scored[place].candidate) << "  " << kl.mean << plus_minus(kl.standard_error, 5);
        for (const auto& [name, words] : {std::pair("recall_kl", "of answers"), {"far_kl", "of far context"}})
            if (const auto found = result.samples.find(name); found != result.samples.end())
                std::cout << "  " << words << " " << mean_and_error(found->second).mean
                          << plus_minus(mean_and_error(found->second).standard_error, 5);
        if (result.measured_share < 1.0)
            std::cout << "  measured on " << std::lround(100.0 * result.measured_share) << " %";
        std::cout << '\n';
    }
    if (const auto selection = selection_in_scores(path, "linear")) print_selection(*selection);
}

void print_evaluation(const H5File& file) {
    const auto models = file.read_strings("/model");
    const auto perplexity = file.read_doubles("/perplexity"), kl = file.read_doubles("/kl");
    const auto answers = file.has("/answer_accuracy") ? file.read_doubles("/answer_accuracy") : std::vector<double>();
    const auto recall = file.has("/recall") ? file.read_doubles("/recall/accuracy") : std::vector<double>();
    const size_t cells = recall.size() / std::max<size_t>(models.size(), 1);
    std::cout << std::fixed << std::setprecision(4);
    for (size_t i = 0; i < models.size(); ++i) {
        std::cout << "  " << std::left << std::setw(10) << models[i] << " perplexity " << perplexity[i] << "  KL "
                  << kl[i] << " nat/token";
        if (!recall.empty())
            std::cout << "  recall " << mean_and_error(std::span(recall).subspan(i * cells, cells)).mean;
        if (!answers.empty()) std::cout << "  answers right " << 100.0 * answers[i] << " %";
        std::cout << '\n';
    }
}

}  // namespace

void inspect_command(const std::string& path) {
    const H5File file = H5File::open(path);
    for (const char* name : root_texts)
        if (file.has_attribute("/", name))
            std::cout << std::left << std::setw(18) << name << file.string_attribute("/", name) << '\n';
    for (const char* name : root_integers)
        if (file.has_attribute("/", name))
            std::cout << std::left << std::setw(18) << name << file.integer_attribute("/", name) << '\n';
    print_datasets(file);
    const std::string type = file.has_attribute("/", "filetype") ? file.string_attribute("/", "filetype") : "";
    if (type == "amalgam scores") print_scores(path);
    if (type == "amalgam selection") print_selection(read_selection(path));
    if (type == "amalgam evaluation") print_evaluation(file);
}

}  // namespace amalgam
