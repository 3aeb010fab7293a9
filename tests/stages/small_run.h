// SPDX-License-Identifier: Apache-2.0
// A pipeline of a few hundred tokens with a random teacher, for tests that start the program itself.
#pragma once

#include <map>

#include "../model/small_model.h"
#include "../storage/temporary_folder.h"
#include "../training/small_corpus.h"
#include "job/job_writer.h"
#include "process.h"

namespace amalgam::test {

constexpr int64_t small_layers = 4, small_vocabulary = 61, small_length = 16;

/// `steps` optimizer steps of 6 sequences: 1, 2, 3 and 6 ranks share them evenly.
inline void set_steps(TrainingJob& stage, int64_t steps) {
    stage.batch_sequences = 6;
    stage.sequence_length = small_length;
    stage.tokens = steps * stage.batch_sequences * stage.sequence_length;
    stage.optimizer.warmup_steps = 0;
    stage.optimizer.learning_rate = stage.optimizer.learning_rate_rest = 3e-3;
}

class SmallRun : public TemporaryFolder {
  protected:
    SmallRun() {
        write_model_folder(*small_model({small_config("llama", small_layers), all_softmax(small_layers), {}}, 1),
                           folder / "teacher");
        write_tokens(folder / "train.h5", simple_text(60 * small_length, small_vocabulary, 1), small_vocabulary);
        write_tokens(folder / "validation.h5", simple_text(12 * small_length, small_vocabulary, 2), small_vocabulary,
                     {5, 20, 40});
        job.output = (folder / "outputs").string();
        job.teacher.path = (folder / "teacher").string();
        job.data.training = (folder / "train.h5").string();
        job.data.validation = (folder / "validation.h5").string();
        job.device = DeviceChoice::cpu;
        job.precision = ComputePrecision::float32;  // auto depends on the CPU
        job.deterministic = true;
        job.threads_per_rank = 1;
        job.log_every_steps = 1;
        job.peak_flops = "1e12";  // to measure it takes longer than most stages
        set_steps(job.align, 6);
        set_steps(job.score, 4);
        set_steps(job.distill, 6);
        job.score.validation_sequences = 5;
        job.score.measurements = 2;
        job.select.rule = "kl_guided";
        job.select.options["budget"] = "1";
        job.evaluate.sequences = 5;
        job.evaluate.sequence_length = small_length;
        job.evaluate.position_bins = 4;
        job.export_to.formats = {};
    }

    /// `amalgam run` of `job` on so many ranks, to its end.
    Finished run(int ranks, double time_limit = 180.0) { return start(ranks)->wait(time_limit); }
    std::unique_ptr<Process> start(int ranks) {
        return std::make_unique<Process>(mpi_command(ranks, {AMALGAM_PROGRAM, "run", job_file().string()}));
    }
    /// The job as a file.
    std::filesystem::path job_file() const {
        const auto path = folder / (job.name + ".yaml");
        put(path, to_yaml(job));
        return path;
    }

    std::filesystem::path result(const std::string& file) const { return run_folder() / file; }
    std::filesystem::path run_folder() const { return job.run_folder(); }

    /// Content of every file below the run folder, but for logs and metrics.
    std::map<std::string, std::string> results() const {
        std::map<std::string, std::string> all;
        for (const auto& entry : std::filesystem::recursive_directory_iterator(run_folder()))
            if (entry.is_regular_file() && entry.path().extension() == ".h5")
                all[std::filesystem::relative(entry.path(), run_folder()).string()] = content_of(entry.path());
        return all;
    }

    /// A folder with the results of `job` on one rank, undisturbed. Tests of a program that have the same job and
    /// inputs share one run.
    std::filesystem::path undisturbed() {
        static std::map<std::string, std::map<std::string, std::string>> known;
        const Job given = job;
        job.name = "undisturbed";
        job.deadlines = {};
        std::string inputs = to_yaml(job);
        for (size_t at; (at = inputs.find(folder.string())) != std::string::npos;)
            inputs.erase(at, folder.string().size());
        for (const std::string& file :
             {job.teacher.path + "/model.safetensors", job.data.training, job.data.validation})
            inputs += content_of(file);
        auto& found = known[inputs];
        if (found.empty()) {
            expect_end(run(1), 0, {"finished in"});
            found = results();
        }
        job = given;
        for (const auto& [file, content] : found) {
            const std::filesystem::path path = folder / "undisturbed" / file;
            std::filesystem::create_directories(path.parent_path());
            put(path, content);
        }
        return folder / "undisturbed";
    }

    /// Equal but for rounding.
    static void expect_near_weights(const std::filesystem::path& a, const std::filesystem::path& b) {
        const H5File expected = H5File::open(a), found = H5File::open(b);
        int64_t compared = 0;
        for (const DatasetInfo& dataset : expected.list("/")) {
            if (dataset.type != StoredType::float32) continue;
            const at::Tensor x = at::empty(dataset.shape), y = at::empty(dataset.shape);
            expected.read(dataset.path, dataset.type, x.data_ptr());
            found.read(dataset.path, dataset.type, y.data_ptr());
            EXPECT_LT(relative_error(y, x), 1e-3) << dataset.path;
            ++compared;
        }
        EXPECT_GT(compared, 20);
    }

    /// The file as it was before the run.
    void damage_by_flipping(const std::filesystem::path& file, size_t place) const {
        std::string content = content_of(file);
        content.at(place) = char(content.at(place) ^ 0x10);
        std::filesystem::remove(file);  // it may be shared with another run folder
        put(file, content);
    }

    Job job;
};

/// Names of the datasets whose bytes differ between two HDF5 files, or that only one has.
inline std::vector<std::string> differing_datasets(const std::filesystem::path& a, const std::filesystem::path& b,
                                                   const std::vector<std::string>& ignored = {}) {
    const H5File first = H5File::open(a), second = H5File::open(b);
    std::vector<std::string> different;
    const auto listed = first.list("/");
    if (listed.size() != second.list("/").size()) different.push_back("(number of datasets)");
    for (const DatasetInfo& dataset : listed) {
        if (std::find(ignored.begin(), ignored.end(), dataset.path) != ignored.end()) continue;
        if (!second.has(dataset.path) || second.describe(dataset.path).shape != dataset.shape) {
            different.push_back(dataset.path);
            continue;
        }
        size_t bytes = bytes_of(dataset.type);
        for (const int64_t extent : dataset.shape) bytes *= size_t(extent);
        std::string x(bytes, 'x'), y(bytes, 'y');
        first.read(dataset.path, dataset.type, x.data());
        second.read(dataset.path, dataset.type, y.data());
        if (x != y) different.push_back(dataset.path);
    }
    return different;
}

/// What scores.h5 holds of the machine, not of the model.
inline const std::vector<std::string> times_and_places = {"/seconds", "/rank"};

}  // namespace amalgam::test
