// SPDX-License-Identifier: Apache-2.0
#include "model/weights.h"

#include <gtest/gtest.h>

#include "../storage/temporary_folder.h"
#include "small_model.h"

namespace amalgam {
namespace {

using test::expect_error;

/// Tensors of a model, some of them changed or left out.
class ChangedSource : public TensorSource {
  public:
    explicit ChangedSource(CausalLM& model) : model_(model, "changed model") {}
    std::optional<at::Tensor> find(const std::string& name) const override {
        if (name == left_out) return std::nullopt;
        if (const auto found = changed.find(name); found != changed.end()) return found->second;
        return model_.find(name);
    }
    std::string where() const override { return model_.where(); }

    std::string left_out;
    std::map<std::string, at::Tensor> changed;

  private:
    ModelSource model_;
};

class Weights : public test::TemporaryFolder {
  protected:
    const ModelSpec spec{test::small_config("qwen2"), all_softmax(3), {}};
    std::unique_ptr<CausalLM> original = test::small_model(spec, 1);
    ChangedSource source{*original};
    const std::string name = "model.layers.1.self_attn.k_proj.weight";

    void load() {
        CausalLM model(spec, at::kCPU, at::kFloat, false);
        load_weights(model, {&source});
    }
};

TEST_F(Weights, a_loaded_model_computes_the_same) {
    const at::Tensor tokens = test::random_tokens(1, 9, spec.config.vocabulary_size, 1);
    for (const bool trainable : {false, true}) {
        CausalLM copy(spec, at::kCPU, at::kFloat, trainable);
        load_weights(copy, {&source});
        EXPECT_TRUE(at::equal(copy.logits(tokens).detach(), original->logits(tokens)));
    }
}

/// What is kept in memory must not be overwritten by the training of a model that was filled from it.
TEST_F(Weights, a_model_in_memory_gives_copies) {
    auto first = std::make_unique<CausalLM>(spec, at::kCPU, at::kFloat, true);
    load_weights(*first, {&source});
    const ModelSource kept(*first, "first");
    first.reset();
    CausalLM trained(spec, at::kCPU, at::kFloat, true);
    load_weights(trained, {&kept});
    for (Parameter& p : trained.parameters().all()) p.master.fill_(7.0);
    CausalLM again(spec, at::kCPU, at::kFloat, true);
    load_weights(again, {&kept});
    const ModelSource found(again, "again"), expected(*original, "original");
    again.parameters().for_each_named([&](const std::string& n, at::Tensor, Parameter&) {
        EXPECT_TRUE(at::equal(*found.find(n), *expected.find(n))) << n;
    });
}

TEST_F(Weights, masters_are_fp32_and_bfloat16_follows_them) {
    CausalLM student(spec, at::kCPU, at::kBFloat16, true);
    load_weights(student, {&source});
    for (const Parameter& p : student.parameters().all()) {
        EXPECT_EQ(p.master.scalar_type(), at::kFloat) << p.name;
        EXPECT_EQ(p.compute.scalar_type(), p.full_precision ? at::kFloat : at::kBFloat16) << p.name;
        EXPECT_TRUE(at::equal(p.compute.detach(), p.master.to(p.compute.scalar_type()))) << p.name;
    }
}

TEST_F(Weights, the_first_source_that_has_a_tensor_wins) {
    const auto other = test::small_model(spec, 2);
    source.left_out = name;
    ModelSource second(*other, "other model");
    CausalLM model(spec, at::kCPU, at::kFloat, false);
    load_weights(model, {&source, &second});
    const ModelSource loaded(model, "loaded");
    EXPECT_TRUE(at::equal(*loaded.find(name), *second.find(name)));
    EXPECT_TRUE(at::equal(*loaded.find("lm_head.weight"), *source.find("lm_head.weight")));
}

TEST_F(Weights, missing_tensors_are_named) {
    source.left_out = name;
    expect_error([&] { load(); }, ExitCode::bad_input, {"changed model", name, "missing"});
}

TEST_F(Weights, wrong_shapes_are_named) {
    source.changed[name] = at::zeros({15, 24});
    expect_error([&] { load(); }, ExitCode::bad_input, {"changed model", name, "[15, 24]", "[16, 24]"});
    source.changed[name] = at::zeros({384});  // as many numbers
    expect_error([&] { load(); }, ExitCode::bad_input, {"changed model", name, "[384]"});
}

TEST_F(Weights, values_that_are_not_finite_are_named) {
    for (const float bad : {NAN, INFINITY, -INFINITY}) {
        at::Tensor t = at::zeros({16, 24});
        t[3][4] = bad;
        source.changed[name] = t;
        expect_error([&] { load(); }, ExitCode::bad_input, {"changed model", name, "NaN or infinite"});
    }
}

TEST_F(Weights, a_hugging_face_folder_is_read) {
    const auto config = test::small_config("llama");
    const auto model = test::small_model({config, all_softmax(3), {}}, 4);
    test::write_model_folder(*model, folder);
    const auto teacher = load_teacher(folder, at::kCPU, at::kFloat);
    const at::Tensor tokens = test::random_tokens(2, 5, config.vocabulary_size, 1);
    EXPECT_TRUE(at::equal(teacher->logits(tokens), model->logits(tokens)));
    EXPECT_FALSE(teacher->parameters().trainable());
    EXPECT_FALSE(HuggingFaceSource(folder).find("nothing").has_value());
}

TEST_F(Weights, folders_with_another_config_are_refused) {
    auto config = test::small_config("llama");
    test::write_model_folder(*test::small_model({config, all_softmax(3), {}}, 4), folder);
    config.intermediate_size += 8;
    test::put(folder / "config.json", test::config_json(config));
    expect_error([&] { load_teacher(folder, at::kCPU, at::kFloat); }, ExitCode::bad_input,
                 {folder.string(), "down_proj.weight", "config.json"});
}

TEST_F(Weights, truncated_files_are_damaged) {
    test::write_model_folder(*test::small_model({test::small_config(), all_softmax(3), {}}, 4), folder);
    const auto file = folder / "model.safetensors";
    std::filesystem::resize_file(file, std::filesystem::file_size(file) - 1);
    expect_error([&] { load_teacher(folder, at::kCPU, at::kFloat); }, ExitCode::damaged_file, {file.string()});
}

}  // namespace
}  // namespace amalgam
