// SPDX-License-Identifier: Apache-2.0
#include "checkpoints/checkpoint.h"

#include <cmath>
#include <limits>

#include "../model/small_model.h"
#include "../storage/temporary_folder.h"
#include "objectives/objective.h"
#include "storage/checksum.h"
#include "storage/posix_file.h"
#include "whole_checkpoint.h"

namespace amalgam {
namespace {

using test::expect_error;

class CheckpointFiles : public test::TemporaryFolder {
  protected:
    const std::filesystem::path path = folder / "align-00000003.h5";
    const ModelSpec spec{test::small_config("qwen2"), keep_softmax(3, test::linear_mixer, {1}), {}};
    std::unique_ptr<CausalLM> model = test::small_model(spec, 1, true);
    AdamW optimizer{all_parameters(*model), {.learning_rate = 1e-3, .learning_rate_rest = 1e-3}};

    void SetUp() override {
        for (int step = 0; step < 3; ++step) {
            Gradients gradients(all_parameters(*model), at::kCPU, false);
            for (Parameter* p : all_parameters(*model))
                gradients.add(*p, test::normal_numbers(p->shape, uint64_t(step), p->name));
            optimizer.step(gradients, 1.0, 1.0, 1);
        }
        test::write_checkpoint(path, *model, &optimizer, {"align", 3, 1536, 12, 77});
    }

    /// Flips one bit of the first place in the file where the tensor's bytes are.
    void flip_a_bit_of(const at::Tensor& tensor) {
        std::string content = test::content_of(path);
        const at::Tensor t = tensor.contiguous();
        const std::string bytes(static_cast<const char*>(t.const_data_ptr()), size_t(t.nbytes()));
        const size_t place = content.find(bytes);
        ASSERT_NE(place, std::string::npos);
        ASSERT_EQ(content.find(bytes, place + 1), std::string::npos) << "must be found once";
        content[place + bytes.size() / 2] = char(content[place + bytes.size() / 2] ^ 1);
        test::put(path, content);
    }
};

TEST_F(CheckpointFiles, gives_everything_back) {
    const Checkpoint checkpoint(path);
    EXPECT_EQ(checkpoint.state().stage, "align");
    EXPECT_EQ(checkpoint.state().step, 3);
    EXPECT_EQ(checkpoint.state().tokens, 1536);
    EXPECT_EQ(checkpoint.state().data_cursor, 12);
    EXPECT_EQ(checkpoint.state().seed, 77);
    EXPECT_EQ(to_json(checkpoint.spec()), to_json(spec));

    const auto copy = test::small_model(spec, 9, true);
    load_weights(*copy, {&checkpoint});
    const ModelSource expected(*model, "model");
    copy->parameters().for_each_named([&](const std::string& name, at::Tensor t, Parameter&) {
        EXPECT_TRUE(at::equal(t, *expected.find(name))) << name;
    });

    ASSERT_TRUE(checkpoint.optimizer_steps().has_value());
    AdamW loaded(all_parameters(*copy), {});
    test::load_optimizer(checkpoint, loaded);
    EXPECT_EQ(loaded.steps(), 3);
    std::map<std::string, std::pair<at::Tensor, at::Tensor>> moments;
    optimizer.for_each_moment([&](const std::string& name, at::Tensor m, at::Tensor v) { moments[name] = {m, v}; });
    loaded.for_each_moment([&](const std::string& name, at::Tensor m, at::Tensor v) {
        EXPECT_TRUE(at::equal(m, moments.at(name).first)) << name;
        EXPECT_TRUE(at::equal(v, moments.at(name).second)) << name;
    });
}

TEST_F(CheckpointFiles, holds_pieces_under_the_names_of_the_world) {
    const H5File file = H5File::open(path);
    for (const char* name : {"model.layers.0.linear_attn.q_proj.weight", "model.layers.1.self_attn.k_proj.bias",
                             "model.layers.2.mlp.up_proj.weight"}) {
        EXPECT_TRUE(file.has(std::string("/model/") + name)) << name;
        EXPECT_TRUE(file.has(std::string("/optimizer/exp_avg/") + name)) << name;
    }
    EXPECT_FALSE(file.has("/model/model.layers.0.linear_attn.in_proj.weight"));
}

TEST_F(CheckpointFiles, a_finished_stage_needs_no_moments) {
    test::write_checkpoint(folder / "align.h5", *model, nullptr, {"align", 3, 1536, 12, 77});
    EXPECT_FALSE(Checkpoint(folder / "align.h5").optimizer_steps().has_value());
    EXPECT_FALSE(Checkpoint(path).find("nothing").has_value());
}

TEST_F(CheckpointFiles, a_flipped_bit_of_a_weight_is_found) {
    const std::string name = "model.layers.2.mlp.up_proj.weight";
    flip_a_bit_of(*ModelSource(*model, "").find(name));
    expect_error([&] { Checkpoint(path).find(name); }, ExitCode::damaged_file,
                 {path.string(), "/model/" + name, "checksum"});
    expect_error(
        [&] {
            const Checkpoint checkpoint(path);
            load_weights(*model, {&checkpoint});
        },
        ExitCode::damaged_file, {path.string(), "/model/" + name});
}

TEST_F(CheckpointFiles, a_flipped_bit_of_a_moment_is_found) {
    at::Tensor moment;
    const std::string name = "model.layers.0.linear_attn.k_proj.weight";
    optimizer.for_each_moment([&](const std::string& n, at::Tensor, at::Tensor v) { moment = n == name ? v : moment; });
    flip_a_bit_of(moment);
    expect_error([&] { test::load_optimizer(Checkpoint(path), optimizer); }, ExitCode::damaged_file,
                 {path.string(), "/optimizer/exp_avg_sq/" + name});
}

/// P12. Anywhere in any tensor; the file that was there before stays.
TEST_F(CheckpointFiles, of_numbers_that_are_not_finite_are_not_written) {
    const std::string before = test::content_of(path);
    const at::Tensor weights = all_parameters(*model).back()->master.detach().view({-1});
    for (const int64_t place : {int64_t{0}, weights.numel() - 1}) {
        const float good = weights[place].item<float>();
        for (const float bad : {NAN, HUGE_VALF, -HUGE_VALF}) {
            weights[place].fill_(bad);
            expect_error(
                [&] {
                    test::write_checkpoint(path, *model, nullptr, {"distill", 4, 0, 0, 0});
                },
                ExitCode::diverged, {path.string(), "NaN or infinite", "learning rate"});
            EXPECT_EQ(test::content_of(path), before);
            EXPECT_TRUE(test::temporaries_of(path).empty());
        }
        weights[place].fill_(std::numeric_limits<float>::max());
        EXPECT_NO_THROW(test::write_checkpoint(folder / "large", *model, nullptr, {"distill", 4, 0, 0, 0}));
        weights[place].fill_(good);
    }
}

/// As earlier versions of the program wrote them; with their checksum, so that they are not damaged.
TEST_F(CheckpointFiles, and_are_not_read) {
    EXPECT_NO_THROW(Checkpoint(path).look_through(int64_t{1} << 30));
    const std::string dataset = "/model/model.norm.weight";
    const int64_t offset = H5File::open(path).offset_of(dataset);
    std::vector<float> values(size_t(H5File::open(path).describe(dataset).shape[0]), 1.0F);
    values.back() = HUGE_VALF;
    const int64_t bytes = int64_t(values.size() * sizeof(float));
    PosixFile::update(path).write_at(offset, values.data(), bytes);
    expect_error([&] { Checkpoint(path).look_through(int64_t{1} << 30); }, ExitCode::damaged_file, {dataset});
    H5File::update(path).set_attribute(dataset, "crc32", int64_t{crc32_of(values.data(), bytes)});
    expect_error([&] { Checkpoint(path).find("model.norm.weight"); }, ExitCode::diverged, {path.string(), dataset});
    expect_error([&] { Checkpoint(path).look_through(int64_t{1} << 30); }, ExitCode::diverged, {dataset});
}

/// Of data, names, shapes, attributes or HDF5's own structures: either it is noticed, or it changes nothing.
TEST_F(CheckpointFiles, no_flipped_bit_anywhere_passes_for_something_else) {
    const std::string good = test::content_of(path);
    const ModelSource expected(*model, "model");
    int64_t noticed = 0, tried = 0;
    for (size_t place = 0; place < good.size(); place += 509, ++tried) {
        std::string content = good;
        content[place] = char(content[place] ^ (1 << (place % 8)));
        test::put(path, content);
        try {
            const Checkpoint checkpoint(path);
            AdamW loaded(all_parameters(*model), {});
            test::load_optimizer(checkpoint, loaded);
            EXPECT_EQ(loaded.steps(), 3);
            EXPECT_EQ(checkpoint.state().step, 3);
            EXPECT_EQ(checkpoint.state().data_cursor, 12);
            EXPECT_EQ(to_json(checkpoint.spec()), to_json(spec));
            model->parameters().for_each_named([&](const std::string& name, at::Tensor t, Parameter&) {
                const auto found = checkpoint.find(name);
                ASSERT_TRUE(found.has_value()) << name << ", byte " << place;
                EXPECT_TRUE(at::equal(*found, t)) << name << ", byte " << place;
            });
        } catch (const Error& error) {
            EXPECT_EQ(error.code(), ExitCode::damaged_file) << error.what();
            EXPECT_NE(std::string(error.what()).find(path.string()), std::string::npos) << error.what();
            ++noticed;
        }
    }
    EXPECT_GT(noticed, tried / 2);
}

TEST_F(CheckpointFiles, files_of_format_1_are_refused) {
    write_h5_once(path, [&](H5File& file) { file.describe_file("amalgam checkpoint", Provenance{}, 1); });
    expect_error([&] { Checkpoint checkpoint(path); }, ExitCode::damaged_file,
                 {path.string(), "format version is 1.0", "reads versions from 2.x on", "make it again"});
}

TEST_F(CheckpointFiles, a_file_that_was_not_written_to_its_end_is_refused) {
    H5File::update(path).set_attribute("/", "complete", int64_t{0});
    expect_error([&] { Checkpoint checkpoint(path); }, ExitCode::damaged_file, {path.string(), "complete"});
    write_h5_once(path, [&](H5File& file) { file.describe_file("amalgam checkpoint", Provenance{}, 2); });
    expect_error([&] { Checkpoint checkpoint(path); }, ExitCode::damaged_file, {path.string(), "complete"});
}

TEST_F(CheckpointFiles, truncated_files_are_damaged) {
    const auto size = std::filesystem::file_size(path);
    for (const auto left : {size - 1, size / 2, uintmax_t{100}, uintmax_t{0}}) {
        std::filesystem::resize_file(path, left);
        expect_error([&] { Checkpoint checkpoint(path); }, ExitCode::damaged_file, {path.string()});
    }
}

TEST_F(CheckpointFiles, other_files_are_not_checkpoints) {
    write_h5_once(folder / "other.h5", [](H5File& file) { file.describe_file("amalgam scores", Provenance{}); });
    expect_error([&] { Checkpoint checkpoint(folder / "other.h5"); }, ExitCode::damaged_file,
                 {(folder / "other.h5").string(), "amalgam checkpoint"});
    expect_error([&] { Checkpoint checkpoint(folder / "none.h5"); }, ExitCode::bad_input,
                 {(folder / "none.h5").string()});
}

TEST_F(CheckpointFiles, missing_moments_are_an_error) {
    Parameter* known = all_parameters(*model)[0];
    AdamW part({known}, {});
    test::write_checkpoint(folder / "part.h5", *model, &part, {"align", 3, 1536, 12, 77});
    expect_error([&] { test::load_optimizer(Checkpoint(folder / "part.h5"), optimizer); }, ExitCode::damaged_file,
                 {(folder / "part.h5").string(), "/optimizer/exp_avg/"});
}

}  // namespace
}  // namespace amalgam
