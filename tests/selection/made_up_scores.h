// SPDX-License-Identifier: Apache-2.0
// Made-up candidates, and scores.h5 and candidates' files as version 1 of the format had them.
#pragma once

#include "selection/score_file.h"
#include "storage/hdf5.h"

namespace amalgam::test {

/// Held-out KL falls from 3 to 1 to `kl`, for four sequences around it.
inline CandidateResult made_up_result(int64_t number, const Candidate& candidate, double kl) {
    CandidateResult result;
    result.number = number;
    result.candidate = candidate;
    result.measured_tokens = {0, 512, 1024};
    result.kl = {{3.0, 2.0, 4.0, 5.0}, {1.0, 1.5, 2.0, 2.5}, {kl - 0.5, kl - 0.25, kl + 0.25, kl + 0.5}};
    result.train_loss = {2.0, 1.0};
    result.seconds = 1.5;
    result.rank = number % 2;
    return result;
}

/// Candidate c restores layer restored[c] of `layers`, with a KL of its number + 1.
inline ScoreTable made_up_scores(int64_t layers, const std::vector<int64_t>& restored,
                                 const std::string& mixer = "gated_delta_net") {
    ScoreTable table;
    for (size_t c = 0; c < restored.size(); ++c)
        table.candidates.push_back(
            made_up_result(int64_t(c), {keep_softmax(layers, mixer, {restored[c]}), {}}, double(c) + 1.0));
    table.all_linear_kl = {5.0, 6.0, 7.0, 8.0};
    return table;
}

inline std::vector<double> scores_of(const ScoreTable& table) {
    std::vector<double> scores;
    for (const CandidateResult& result : table.candidates) scores.push_back(result.score());
    return scores;
}

inline void write_integers(H5File& file, const std::string& name, const std::vector<int64_t>& values) {
    const std::vector<int32_t> small(values.begin(), values.end());
    const int64_t count = int64_t(small.size());
    file.write(name, {&count, 1}, std::span<const int32_t>(small));
}

/// What both kinds of file held of candidates that restore one layer.
inline void write_candidates_of_version_1(H5File& file, const std::vector<CandidateResult>& all) {
    std::vector<int64_t> number, layer, rank;
    std::vector<double> kl, loss, seconds;
    for (const CandidateResult& result : all) {
        number.push_back(result.number);
        layer.push_back(restored_layer(result.candidate).value());
        rank.push_back(result.rank);
        seconds.push_back(result.seconds);
        for (const auto& row : result.kl) kl.insert(kl.end(), row.begin(), row.end());
        loss.insert(loss.end(), result.train_loss.begin(), result.train_loss.end());
    }
    const auto count = int64_t(all.size()), measurements = int64_t(all[0].kl.size());
    using Shape = std::vector<int64_t>;
    write_integers(file, "/candidate", number);
    write_integers(file, "/layer", layer);
    write_integers(file, "/rank", rank);
    file.write("/checkpoint_tokens", Shape{measurements}, std::span<const int64_t>(all[0].measured_tokens));
    file.write("/kl", Shape{count, measurements, int64_t(all[0].kl[0].size())}, std::span<const double>(kl));
    file.write("/train_loss", Shape{count, int64_t(all[0].train_loss.size())}, std::span<const double>(loss));
    file.write("/seconds", Shape{count}, std::span<const double>(seconds));
}

inline void write_candidate_of_version_1(const std::filesystem::path& path, const CandidateResult& result) {
    write_h5_once(path, [&](H5File& file) {
        file.describe_file("amalgam candidate", Provenance{}, 1);
        write_candidates_of_version_1(file, {result});
    });
}

/// `order`: of the selection that these files held too; nothing: none yet.
inline void write_scores_of_version_1(const std::filesystem::path& path, const ScoreTable& table, int64_t layers,
                                      const std::optional<std::vector<int64_t>>& order) {
    write_h5_once(path, [&](H5File& file) {
        file.describe_file("amalgam scores", Provenance{}, 1);
        file.set_attribute("/", "number_of_layers", layers);
        if (!table.candidates.empty()) {
            write_candidates_of_version_1(file, table.candidates);
            file.write("/all_linear_kl", std::vector<int64_t>{int64_t(table.all_linear_kl.size())},
                       std::span<const double>(table.all_linear_kl));
        }
        if (!order) return;
        write_integers(file, "/selection/layers", softmax_layers(keep_softmax(layers, "linear", *order)));
        write_integers(file, "/selection/order", *order);
        file.set_attribute("/selection", "rule", std::string(table.candidates.empty() ? "explicit" : "kl_guided"));
        file.set_attribute("/selection", "budget", int64_t(order->size()));
        file.set_attribute("/selection", "number_of_layers", layers);
        file.set_attribute("/selection", "seed", int64_t{0});
    });
}

}  // namespace amalgam::test
