// SPDX-License-Identifier: Apache-2.0
// logits, generate and measure, of a Hugging Face folder and of a checkpoint, against the model in this process.
#include "../checkpoints/whole_checkpoint.h"
#include "../generation/whole_passes.h"
#include "../stages/small_run.h"
#include "training/batches.h"

namespace amalgam {
namespace {

using test::expect_end;

class ModelCommands : public test::TemporaryFolder {
  protected:
    ModelCommands() {
        test::write_tokens(folder / "tokens.h5", test::simple_text(50, 61, 1), 61);
        tokens = read_sequences(TokenFile(folder / "tokens.h5"), 16, 0, 3);
    }
    /// `more`: option, value, option, value; of the usual ones they take the place.
    test::Finished command(const std::string& name, const std::filesystem::path& model,
                           const std::vector<std::string>& more = {}) const {
        std::map<std::string, std::string> options = {{"--model", model.string()},
                                                      {"--tokens", (folder / "tokens.h5").string()},
                                                      {"--out", out.string()},
                                                      {"--sequence-length", "16"}};
        for (size_t i = 0; i + 1 < more.size(); i += 2) options[more[i]] = more[i + 1];
        std::vector<std::string> all = {AMALGAM_PROGRAM, name};
        for (const auto& [option, value] : options) all.insert(all.end(), {option, value});
        return test::Process(all).wait(30.0);
    }

    void expect_commands(CausalLM& model, const std::filesystem::path& path) {
        expect_end(command("logits", path), 0, {});
        const at::Tensor logits = at::empty({3, 16, 61});
        H5File::open(out).read("/logits", StoredType::float32, logits.data_ptr());
        EXPECT_LT(test::relative_error(logits, model.logits(tokens).detach()), 1e-6);

        std::filesystem::remove(out);  // a result of another kind is not overwritten
        expect_end(command("generate", path, {"--count", "9"}), 0, {});
        std::vector<int64_t> expected;
        for (int64_t s = 0; s < 3; ++s)
            for (const int32_t token : test::by_whole_passes(model, test::row_of(tokens, s), 9))
                expected.push_back(token);
        EXPECT_EQ(H5File::open(out).describe("/generated").shape, (std::vector<int64_t>{3, 9}));
        EXPECT_EQ(H5File::open(out).read_integers("/generated"), expected);
    }

    const std::filesystem::path out = folder / "out.h5";
    at::Tensor tokens;
};

TEST_F(ModelCommands, of_a_folder) {
    const auto model = test::small_model({test::small_config(), all_softmax(3), {}}, 1);
    test::write_model_folder(*model, folder / "teacher");
    expect_commands(*model, folder / "teacher");
}

TEST_F(ModelCommands, of_a_checkpoint) {
    const Options options = {{"short_convolution", true}};
    const auto model =
        test::small_model({test::small_config("qwen3"), keep_softmax(3, test::linear_mixer, {1}), options}, 1, true);
    test::write_checkpoint(folder / "distill.h5", *model, nullptr, {"distill", 1, 1, 1, 1});
    expect_commands(*model, folder / "distill.h5");
}

TEST_F(ModelCommands, measure_teacher_and_student_alike) {
    const auto teacher = test::small_model({test::small_config(), all_softmax(3), {}}, 1);
    test::write_model_folder(*teacher, folder / "teacher");
    const auto student =
        test::small_model({test::small_config(), keep_softmax(3, test::linear_mixer, {1}), {}}, 1, true);
    test::write_checkpoint(folder / "distill.h5", *student, nullptr, {"distill", 1, 1, 1, 1});
    const auto measure = [&](std::vector<std::string> more) {
        std::vector<std::string> all = {AMALGAM_PROGRAM, "measure",
                                        "--model",       (folder / "teacher").string(),
                                        "--model",       (folder / "distill.h5").string(),
                                        "--device",      "cpu",
                                        "--precision",   "float32",
                                        "--steps",       "2",
                                        "--out",         out.string()};
        all.insert(all.end(), more.begin(), more.end());
        return test::Process(all).wait(60.0);
    };
    expect_end(measure({"--contexts", "20,40,100", "--batches", "0,3"}), 2, {"--batches"});
    expect_end(measure({"--contexts", "20,40,100", "--batches", "1,3"}), 0, {});
    const H5File file = H5File::open(out);
    EXPECT_EQ(file.describe("/step").shape, (std::vector<int64_t>{2, 3, 2}));
    for (const char* name : {"/first_token", "/step", "/step_floor"})
        for (const double seconds : file.read_doubles(name)) EXPECT_GT(seconds, 0.0) << name;
    // Keys and values of two heads of 8 in fp32, of three layers and of one beside two states of 4 heads.
    const double of_a_token = 2 * 2 * 8 * 4, states = 2 * 4 * 8 * 8 * 4;
    EXPECT_EQ(file.read_doubles("/cache_bytes"),
              (std::vector<double>{60 * of_a_token, 120 * of_a_token, 300 * of_a_token, 20 * of_a_token + states,
                                   40 * of_a_token + states, 100 * of_a_token + states}));
    expect_end(measure({"--contexts", "20", "--batches", "1"}), 2, {"--out", "out.h5"});
}

TEST_F(ModelCommands, name_the_checkpoint_in_place_of_an_exported_student) {
    const auto student =
        test::small_model({test::small_config(), keep_softmax(3, test::linear_mixer, {1}), {}}, 1, true);
    test::write_model_folder(*test::small_model({test::small_config(), all_softmax(3), {}}, 1), folder / "teacher");
    std::filesystem::create_directories(folder / "checkpoints");
    const auto checkpoint = folder / "checkpoints" / "distill.h5", exported = folder / "student";
    test::write_checkpoint(checkpoint, *student, nullptr, {"distill", 1, 1, 1, 1});
    const auto to_folder = [&](const std::filesystem::path& source) {
        return test::Process({AMALGAM_PROGRAM, "export", source.string(), exported.string(), "--to", "qwen3_5",
                              "--teacher", (folder / "teacher").string()})
            .wait(30.0);
    };
    expect_end(to_folder(checkpoint), 0, {});
    expect_end(command("logits", exported), 2, {"is an exported student", checkpoint.string()});
    std::filesystem::remove(checkpoint);
    expect_end(command("generate", exported), 2, {"is an exported student", "checkpoints/distill.h5"});
    expect_end(command("logits", folder / "tokens.h5"), 2, {"amalgam tokens", "checkpoint is needed"});
    expect_end(to_folder(folder / "tokens.h5"), 2, {"amalgam tokens", "checkpoint is needed"});
    expect_end(to_folder(folder / "teacher"), 2, {"is a folder", "checkpoint is needed"});
}

/// Nothing is measured that could not be written: the place is looked at before the model, which is none here.
TEST_F(ModelCommands, look_at_the_place_of_their_result_first) {
    const std::string out = (folder / "nowhere" / "out.h5").string(), model = (folder / "no_model").string();
    for (const char* name : {"logits", "generate"})
        expect_end(command(name, model, {"--out", out}), 2, {"--out", "nowhere is not a folder"});
    expect_end(test::Process({AMALGAM_PROGRAM, "measure", "--model", model, "--out", out}).wait(30.0), 2,
               {"--out", "nowhere is not a folder"});
    expect_end(command("logits", model, {"--out", folder.string() + "/"}), 2, {"--out", "names no file"});
}

TEST_F(ModelCommands, overwrite_nothing_but_their_own_results) {
    const auto model = test::small_model({test::small_config(), all_softmax(3), {}}, 1);
    test::write_model_folder(*model, folder / "teacher");
    const std::string tokens_before = test::content_of(folder / "tokens.h5");
    expect_end(command("logits", folder / "teacher", {"--out", (folder / "tokens.h5").string()}), 2,
               {"--out", "tokens.h5", "amalgam tokens"});
    EXPECT_EQ(test::content_of(folder / "tokens.h5"), tokens_before);
    const auto config = folder / "teacher" / "config.json";
    expect_end(command("generate", folder / "teacher", {"--out", config.string()}), 2, {"--out", "config.json"});
    expect_end(command("logits", folder / "teacher"), 0, {});
    expect_end(command("generate", folder / "teacher"), 2, {"--out", "amalgam logits"});
    expect_end(command("logits", folder / "teacher"), 0, {});  // their own result they do
}

TEST_F(ModelCommands, refuse_numbers_that_make_no_sense) {
    test::write_model_folder(*test::small_model({test::small_config(), all_softmax(3), {}}, 1), folder / "teacher");
    for (const char* length : {"0", "-3"})
        expect_end(command("logits", folder / "teacher", {"--sequence-length", length}), 2,
                   {"--sequence-length", length});
    expect_end(command("logits", folder / "teacher", {"--sequences", "-1"}), 2, {"--sequences", "-1"});
    expect_end(command("generate", folder / "teacher", {"--count", "0"}), 2, {"--count", "0"});
}

TEST_F(ModelCommands, refuse_what_they_cannot_do) {
    const auto model = test::small_model({test::small_config(), all_softmax(3), {}}, 1);
    test::write_model_folder(*model, folder / "teacher");
    expect_end(command("logits", folder / "teacher", {"--sequences", "4"}), 2, {"holds 3 sequences of 16", "4"});
    expect_end(command("logits", folder / "teacher", {"--precision", "float16"}), 2, {"--precision", "float16"});
    expect_end(command("logits", folder / "nothing"), 2, {"nothing"});
    test::write_tokens(folder / "tokens.h5", std::vector<int64_t>(50, 70), 71);
    expect_end(command("logits", folder / "teacher"), 2, {"tokens.h5", "70", "61"});
    EXPECT_FALSE(std::filesystem::exists(out));
}

}  // namespace
}  // namespace amalgam
