// SPDX-License-Identifier: Apache-2.0
// Inputs and results that are damaged: the program must end on all ranks, name file and field, and leave what is there
// as it is.
#include "../selection/made_up_scores.h"
#include "checkpoints/checkpoint.h"
#include "small_run.h"
#include "system/sha256.h"

namespace amalgam {
namespace {

namespace fs = std::filesystem;
using test::expect_end;

class DamagedInputs : public test::SmallRun {
  protected:
    const fs::path weights = folder / "teacher" / "model.safetensors";

    /// Nothing of a run may be there.
    void expect_refused(const std::vector<std::string>& parts) {
        expect_end(run(2), int(ExitCode::bad_input), parts);
        EXPECT_FALSE(fs::exists(result("checkpoints/transfer.h5")));
    }

    /// Replaces the first occurrence of `part` in the header of the weights by a text of the same length.
    void change_header(const std::string& part, const std::string& by) const {
        ASSERT_EQ(part.size(), by.size());
        std::string content = test::content_of(weights);
        const size_t at = content.find(part);
        ASSERT_NE(at, std::string::npos);
        content.replace(at, part.size(), by);
        test::put(weights, content);
    }
};

TEST_F(DamagedInputs, truncated_weights) {
    fs::resize_file(weights, fs::file_size(weights) - 4);
    expect_refused({weights.string()});
}

TEST_F(DamagedInputs, weights_whose_header_lies_about_a_shape) {
    change_header("[61,24]", "[61,25]");
    expect_refused({weights.string(), "model.embed_tokens.weight"});
}

TEST_F(DamagedInputs, weights_that_the_config_does_not_describe) {
    change_header("[61,24]", "[24,61]");
    expect_refused({"model.embed_tokens.weight", "[24, 61]", "[61, 24]"});
}

TEST_F(DamagedInputs, weights_that_lack_a_tensor) {
    change_header("model.layers.2.mlp.up_proj.weight", "model.layers.2.mlp.no_proj.weight");
    expect_refused({(folder / "teacher").string(), "model.layers.2.mlp.up_proj.weight", "missing"});
}

TEST_F(DamagedInputs, tokenizer_files_that_the_export_could_not_read) {
    job.export_to.formats = {"qwen3_5"};
    test::put(folder / "teacher" / "tokenizer_config.json", "{");
    expect_refused({"tokenizer_config.json", "JSON"});
}

TEST_F(DamagedInputs, validation_tokens_that_are_the_training_tokens) {
    fs::copy_file(job.data.training, folder / "copy.h5");
    job.data.validation = (folder / "copy.h5").string();
    expect_refused({"data.validation", "copy.h5", "data.training"});
    fs::create_symlink(job.data.training, folder / "link.h5");
    job.data.validation = (folder / "link.h5").string();
    expect_refused({"data.validation", "link.h5", "data.training"});
}

TEST_F(DamagedInputs, weights_that_are_not_numbers) {
    const auto model = test::small_model({test::small_config("llama", 4), all_softmax(4), {}}, 1);
    model->parameters().for_each_named([](const std::string& name, at::Tensor t, Parameter&) {
        if (name == "model.layers.1.mlp.down_proj.weight") t[2][3] = NAN;
    });
    test::write_model_folder(*model, folder / "teacher");
    expect_refused({(folder / "teacher").string(), "model.layers.1.mlp.down_proj.weight", "NaN"});
}

TEST_F(DamagedInputs, a_config_that_is_not_supported) {
    auto config = test::small_config("llama", 4);
    config.family = "gemma";
    test::put(folder / "teacher" / "config.json", test::config_json(config));
    expect_refused({"config.json", "gemma"});
}

TEST_F(DamagedInputs, a_corpus_of_another_tokenizer) {
    test::write_tokens(folder / "train.h5", test::simple_text(960, 5000, 1), 5000);
    expect_refused({"the token files need a vocabulary of", "the teacher knows 61"});
}

/// Tokenizers may be larger than what the text needs.
TEST_F(DamagedInputs, a_corpus_whose_tokenizer_has_more_tokens_than_the_text_is_none) {
    test::write_tokens(folder / "train.h5", test::simple_text(960, 61, 1), 5000);
    expect_end(run(1), 0, {"data.training: the tokenizer has 5000 tokens and the teacher knows 61"});
}

/// Same size, other words.
TEST_F(DamagedInputs, a_corpus_of_another_tokenizer_of_the_same_size) {
    job.evaluate.sequences = 0;
    const auto write = [&](const std::string& file, const std::string& tokenizer) {
        const uint64_t text = file == "train.h5" ? 1 : 2;
        test::write_tokens(folder / file, test::simple_text(960, 61, text), 61, {}, sha256(tokenizer));
    };
    test::put(folder / "teacher" / "tokenizer.json", "ours");
    write("train.h5", "ours");
    write("validation.h5", "theirs");
    expect_refused({"data.validation", (folder / "validation.h5").string(), sha256("theirs").substr(0, 12),
                    sha256("ours").substr(0, 12), "data.allow_other_tokenizer"});
    fs::remove(folder / "teacher" / "tokenizer.json");
    expect_refused({"data.validation", (folder / "validation.h5").string(), (folder / "train.h5").string()});
    job.data.allow_other_tokenizer = true;
    expect_end(run(1), 0, {});
    write("validation.h5", "ours");
    job.name = "second";  // the first one was made of another file
    job.data.allow_other_tokenizer = false;
    test::put(folder / "teacher" / "tokenizer.json", "ours");
    expect_end(run(1), 0, {});
}

TEST_F(DamagedInputs, a_corpus_that_lies_about_its_vocabulary) {
    auto tokens = test::simple_text(960, 61, 1);
    tokens[500] = 200;
    test::write_tokens(folder / "train.h5", tokens, 61);
    test::set_steps(job.align, 10);  // every sequence is read
    expect_end(run(2), int(ExitCode::damaged_file), {(folder / "train.h5").string(), "200", "500"});
    EXPECT_TRUE(fs::exists(result("checkpoints/transfer.h5")));
    EXPECT_FALSE(fs::exists(result("checkpoints/align.h5")));
}

/// One rank of a group fails alone: the other one must not wait for it for ever.
TEST_F(DamagedInputs, a_candidate_that_one_rank_of_its_group_cannot_read) {
    auto tokens = test::simple_text(960, 61, 1);
    tokens[500] = 200;
    test::write_tokens(folder / "train.h5", tokens, 61);
    job.align.tokens = 0;
    job.score.ranks_per_candidate = 2;
    test::set_steps(job.score, 10);
    expect_end(run(2, 30.0), int(ExitCode::damaged_file), {(folder / "train.h5").string(), "200"});
    EXPECT_FALSE(fs::exists(result("candidates/candidate-000.h5")));
}

class DamagedResults : public test::SmallRun {
  protected:
    /// A finished run whose last stages are then taken away.
    void SetUp() override {
        fs::create_directories(job.output);
        fs::copy(undisturbed(), run_folder(), fs::copy_options::recursive);
        for (const char* file : {"checkpoints/distill.h5", "evaluation.h5"}) fs::remove(result(file));
    }
    const fs::path aligned = result("checkpoints/align.h5"), scores = result("scores.h5"),
                   selection = result("selection.h5");

    void expect_damaged(const std::vector<std::string>& parts) {
        const auto before = results();
        expect_end(run(2), int(ExitCode::damaged_file), parts);
        EXPECT_EQ(results(), before);
    }
};

TEST_F(DamagedResults, a_flipped_bit_in_a_checkpoint) {
    at::Tensor tensor = *Checkpoint(aligned).find("model.layers.2.linear_attn.q_proj.weight");
    const std::string bytes(static_cast<const char*>(tensor.data_ptr()), size_t(tensor.nbytes()));
    damage_by_flipping(aligned, test::content_of(aligned).find(bytes) + 100);
    expect_damaged({aligned.string(), "/model/model.layers.2.linear_attn.q_proj.weight", "checksum"});
}

/// Not only the rank that is heard first: a launcher may look at any of them.
TEST_F(DamagedResults, every_rank_ends_with_the_same_status) {
    damage_by_flipping(aligned, test::content_of(aligned).size() / 2);
    const std::string command = std::string(AMALGAM_PROGRAM) + " run " + job_file().string() + "; echo \"ended: $?.\"";
    const std::string output = test::Process(test::mpi_command(3, {"sh", "-c", command})).wait(60.0).output;
    const std::string status = "ended: " + std::to_string(int(ExitCode::damaged_file)) + ".";
    size_t count = 0;
    for (size_t at = output.find(status); at != std::string::npos; at = output.find(status, at + 1)) ++count;
    EXPECT_EQ(count, 3U) << output;
}

TEST_F(DamagedResults, a_truncated_checkpoint) {
    fs::resize_file(aligned, fs::file_size(aligned) - 1);
    expect_damaged({aligned.string()});
}

/// Scores are read to select, so the selection is taken away.
TEST_F(DamagedResults, truncated_scores) {
    fs::remove(selection);
    fs::resize_file(scores, fs::file_size(scores) / 2);
    expect_damaged({scores.string()});
}

TEST_F(DamagedResults, scores_that_are_no_hdf5_file) {
    fs::remove(selection);
    damage_by_flipping(scores, 1);
    expect_damaged({scores.string()});
}

TEST_F(DamagedResults, a_flipped_bit_in_the_scores) {
    fs::remove(selection);
    const double loss = read_scores(scores).candidates.at(1).train_loss.at(2);
    const std::string bytes(reinterpret_cast<const char*>(&loss), sizeof loss);
    damage_by_flipping(scores, test::content_of(scores).find(bytes));
    expect_damaged({scores.string(), "/train_loss", "checksum"});
}

TEST_F(DamagedResults, a_truncated_selection) {
    fs::resize_file(selection, fs::file_size(selection) / 2);
    expect_damaged({selection.string()});
}

TEST_F(DamagedResults, a_flipped_bit_in_the_selection) {
    const std::string layout = test::content_of(selection);
    damage_by_flipping(selection, layout.find(std::string("softmax")));
    expect_damaged({selection.string(), "/layout", "checksum"});
}

/// All stages are done: what a finished run has is looked at, too.
TEST_F(DamagedResults, do_not_count_as_done) {
    job.export_to.formats = {"qwen3_5"};
    job.name = "finished";
    expect_end(run(1), 0, {});
    expect_end(run(1), 0, {"evaluate: done before", "export: done before"});
    for (const char* name : {"checkpoints/transfer.h5", "checkpoints/align.h5", "checkpoints/distill.h5", "scores.h5",
                             "selection.h5", "evaluation.h5"}) {
        const std::string good = test::content_of(result(name));
        test::put(result(name), good.substr(0, good.size() / 2));
        expect_damaged({result(name).string()});
        test::put(result(name), good);
    }
    const std::string weights = test::content_of(result("student/model.safetensors"));
    fs::remove(result("student/model.safetensors"));
    expect_end(run(1), 0, {"the export is made again", "evaluate: done before", "export: finished"});
    EXPECT_EQ(test::content_of(result("student/model.safetensors")), weights);
    fs::resize_file(result("student/model.safetensors"), weights.size() - 1);
    expect_end(run(1), 0, {"the export is made again"});
    EXPECT_EQ(test::content_of(result("student/model.safetensors")), weights);
}

/// Nothing depends on a candidate's file but the candidate, so the run goes on and makes it again.
TEST_F(DamagedResults, damaged_candidates_are_scored_again) {
    const ScoreTable before = read_scores(scores);
    fs::remove(scores);
    fs::remove(selection);
    const fs::path truncated = result("candidates/candidate-002.h5"), flipped = result("candidates/candidate-000.h5");
    fs::resize_file(truncated, fs::file_size(truncated) - 10);
    const double loss = before.candidates.at(0).train_loss.at(1);
    const std::string bytes(reinterpret_cast<const char*>(&loss), sizeof loss);
    damage_by_flipping(flipped, test::content_of(flipped).find(bytes));
    fs::copy_file(result("candidates/candidate-003.h5"), result("candidates/candidate-001.h5"),
                  fs::copy_options::overwrite_existing);
    expect_end(run(1), 0,
               {truncated.string(), flipped.string() + ": /train_loss", "candidate-001.h5: is of another candidate",
                "scored again", "3 of 4 candidates to do"});
    EXPECT_EQ(test::scores_of(read_scores(scores)), test::scores_of(before));
}

}  // namespace
}  // namespace amalgam
