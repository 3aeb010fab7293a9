// SPDX-License-Identifier: Apache-2.0
#include "stages/learning_rate_file.h"

#include <array>
#include <limits>
#include <span>

#include "storage/hdf5.h"
#include "system/error.h"

namespace amalgam {
namespace {

constexpr double not_yet = std::numeric_limits<double>::quiet_NaN();

void write_doubles(H5File& file, const std::string& name, const std::vector<int64_t>& shape,
                   const std::vector<double>& values) {
    file.write(name, shape, std::span<const double>(values));
}

void write_trials(H5File& file, const LearningRateRecord& record) {
    const auto trials = int64_t(record.trials.size());
    std::vector<int32_t> position;
    std::vector<double> mixers, rest, losses, seconds;
    for (const RateTrial& trial : record.trials) {
        for (const int64_t steps : trial.position) position.push_back(int32_t(steps));
        const LearningRates rates = rates_at(record.rule, trial.position);
        mixers.push_back(rates.mixers);
        rest.push_back(rates.rest);
        losses.insert(losses.end(), trial.losses.begin(), trial.losses.end());
        seconds.push_back(trial.seconds);
    }
    file.write("/position", std::vector<int64_t>{trials, 2}, std::span<const int32_t>(position));
    write_doubles(file, "/learning_rate", {trials}, mixers);
    write_doubles(file, "/learning_rate_rest", {trials}, rest);
    write_doubles(file, "/held_out_loss", {trials, record.measured_steps}, losses);
    write_doubles(file, "/seconds", {trials}, seconds);
    file.set_attribute("/seconds", "unit", std::string("s"));
}

std::vector<RateTrial> read_trials(const H5File& file, int64_t measured_steps) {
    const auto position = file.read_integers("/position");
    const auto losses = file.read_doubles("/held_out_loss"), seconds = file.read_doubles("/seconds");
    const size_t count = seconds.size(), batches = size_t(measured_steps);
    if (position.size() != 2 * count || losses.size() != batches * count)
        throw Error(text(file.path().string(), ": its datasets do not fit together"), ExitCode::damaged_file);
    std::vector<RateTrial> trials;
    for (size_t t = 0; t < count; ++t) {
        const auto begin = losses.begin() + std::ptrdiff_t(t * batches);
        trials.push_back(
            {{position[2 * t], position[2 * t + 1]}, {begin, begin + std::ptrdiff_t(batches)}, seconds[t]});
    }
    return trials;
}

LearningRates read_rates(const H5File& file, const std::string& name) {
    const auto values = file.read_doubles(name);
    if (values.size() != 2)
        throw Error(text(file.path().string(), ": ", name, ": is not a pair of rates"), ExitCode::damaged_file);
    return {values[0], values[1]};
}

}  // namespace

void write_learning_rates(const std::filesystem::path& path, const LearningRateRecord& record,
                          const Provenance& provenance) {
    write_h5_once(path, [&](H5File& file) {
        file.describe_file("amalgam learning rates", provenance);
        file.set_attribute("/", "stage", record.stage);
        file.set_attribute("/", "trial_sequence_length", record.sequence_length);
        file.set_attribute("/", "trial_steps", record.trained_steps);
        file.set_attribute("/", "measured_batches", record.measured_steps);
        const LearningRates chosen = record.chosen.value_or(LearningRates{not_yet, not_yet});
        write_doubles(file, "/rule", {2}, {record.rule.mixers, record.rule.rest});
        write_doubles(file, "/chosen", {2}, {chosen.mixers, chosen.rest});
        if (!record.trials.empty()) write_trials(file, record);
    });
}

LearningRateRecord read_learning_rates(const std::filesystem::path& path) {
    const H5File file = H5File::open(path);
    file.expect_filetype("amalgam learning rates");
    LearningRateRecord record;
    record.stage = file.string_attribute("/", "stage");
    record.sequence_length = file.integer_attribute("/", "trial_sequence_length");
    record.trained_steps = file.integer_attribute("/", "trial_steps");
    record.measured_steps = file.integer_attribute("/", "measured_batches");
    record.rule = read_rates(file, "/rule");
    const LearningRates chosen = read_rates(file, "/chosen");
    if (chosen.mixers == chosen.mixers) record.chosen = chosen;  // a NaN is not itself
    if (file.has("/position")) record.trials = read_trials(file, record.measured_steps);
    return record;
}

}  // namespace amalgam
