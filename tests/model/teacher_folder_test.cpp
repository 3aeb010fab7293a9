// SPDX-License-Identifier: Apache-2.0
// Which tensors of a folder a teacher reads, and what is said of the others. That the numbers are transformers' is
// tested in tests/parity.
#include "model/teacher_folder.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "../storage/temporary_folder.h"
#include "../storage/write_safetensors.h"
#include "model/weights.h"
#include "small_model.h"

namespace amalgam {
namespace {

using test::expect_error;

class TeacherFolders : public test::TemporaryFolder {
  protected:
    void write(const std::string& family) {
        config = test::small_config(family);
        model = test::small_model({config, all_softmax(3), {}}, 4);
        model->parameters().for_each_named(
            [&](const std::string& name, at::Tensor t, Parameter&) { tensors[name] = t; });
        test::write_model_folder(*model, folder);
    }
    /// model.safetensors of `tensors` as they are now.
    void rewrite() {
        std::vector<test::TensorToWrite> all;
        for (auto& [name, tensor] : tensors) {
            tensor = tensor.cpu().contiguous();
            const auto type = tensor.scalar_type() == at::kLong ? SafetensorsType::i64 : SafetensorsType::f32;
            all.push_back({name, type, tensor.sizes().vec(), tensor.const_data_ptr()});
        }
        test::write_safetensors(folder, all);
    }
    void rename(const std::function<std::string(const std::string&)>& other) {
        std::map<std::string, at::Tensor> renamed;
        for (const auto& [name, tensor] : tensors) renamed[other(name)] = tensor;
        tensors = renamed;
        rewrite();
    }
    std::string notes() const {
        std::string all;
        for (const std::string& note : read_teacher_folder(folder).notes) all += note + "\n";
        return all;
    }
    void expect_same_logits() {
        const at::Tensor tokens = test::random_tokens(1, 7, config.vocabulary_size, 1);
        EXPECT_TRUE(at::equal(load_teacher(folder, test::device(), at::kFloat)->logits(tokens), model->logits(tokens)));
    }
    void expect_refused(std::initializer_list<std::string> parts) {
        expect_error([&] { read_teacher_folder(folder); }, ExitCode::bad_input, {folder.string()});
        expect_error([&] { read_teacher_folder(folder); }, ExitCode::bad_input, parts);
    }

    ModelConfig config;
    std::unique_ptr<CausalLM> model;
    std::map<std::string, at::Tensor> tensors;
};

TEST_F(TeacherFolders, that_hold_what_is_needed_need_no_word) {
    write("qwen2");
    EXPECT_EQ(notes(), "");
    EXPECT_EQ(read_teacher_folder(folder).tensors.size(), tensors.size());
    expect_same_logits();
}

TEST_F(TeacherFolders, unused_tensors_are_listed_by_kind) {
    write("llama");
    for (int layer = 0; layer < 3; ++layer)
        tensors["model.layers." + std::to_string(layer) + ".self_attn.q_proj.bias"] = at::ones({32});
    tensors["extra"] = at::ones({2}, at::kLong);
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = at::ones({4});  // of earlier transformers: no word
    rewrite();
    const std::string said = notes();
    for (const char* part :
         {"4 tensors are not used", "model.layers.N.self_attn.q_proj.bias (3 of them)", "extra", "attention_bias"})
        EXPECT_TRUE(test::contains(said, part)) << part << " is missing in: " << said;
    EXPECT_FALSE(test::contains(said, "inv_freq")) << said;
    expect_same_logits();
}

TEST_F(TeacherFolders, names_may_lack_the_prefix) {
    write("qwen3");
    rename([](const std::string& name) { return name.starts_with("model.") ? name.substr(6) : name; });
    EXPECT_EQ(notes(), "");
    expect_same_logits();
    tensors["model.norm.weight"] = tensors["norm.weight"];
    rewrite();
    expect_refused({"model.norm.weight", "twice"});
}

TEST_F(TeacherFolders, a_tied_head_that_differs_is_a_head_of_its_own) {
    write("llama");
    ASSERT_TRUE(config.tied_head);
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone();
    rewrite();
    EXPECT_TRUE(read_teacher_folder(folder).config.tied_head);
    EXPECT_EQ(notes(), "");
    expect_same_logits();

    tensors["lm_head.weight"][60][23] += 1.0;
    rewrite();
    EXPECT_FALSE(read_teacher_folder(folder).config.tied_head);
    EXPECT_TRUE(read_teacher_folder(folder, /*tied=*/true).config.tied_head) << "somebody has looked before";
    EXPECT_TRUE(test::contains(notes(), "tie_word_embeddings")) << notes();
    const at::Tensor tokens = test::random_tokens(1, 7, config.vocabulary_size, 1);
    const at::Tensor expected = at::linear(model->hidden(tokens), tensors["lm_head.weight"].to(test::device()));
    EXPECT_LT(test::relative_error(load_teacher(folder, test::device(), at::kFloat)->logits(tokens), expected), 1e-6);
}

TEST_F(TeacherFolders, the_head_alone_serves_as_embedding) {
    write("llama");
    rename([](const std::string& name) { return name == "model.embed_tokens.weight" ? "lm_head.weight" : name; });
    expect_same_logits();
}

TEST_F(TeacherFolders, missing_tensors_are_named_before_anything_is_loaded) {
    write("qwen2");
    tensors.erase("lm_head.weight");
    tensors.erase("model.layers.1.mlp.up_proj.weight");
    rewrite();
    expect_refused({"missing", "lm_head.weight", "model.layers.1.mlp.up_proj.weight", "config.json"});
}

TEST_F(TeacherFolders, quantised_weights_are_called_so) {
    write("qwen2");
    rename([](const std::string& name) {
        return name.ends_with("proj.weight") ? name.substr(0, name.size() - 6) + "qweight" : name;
    });
    expect_refused({"quantised"});
    write("qwen2");
    tensors["model.norm.weight"] = at::ones({24}, at::kLong);
    rewrite();
    expect_refused({"model.norm.weight", "I64", "quantised"});
}

TEST_F(TeacherFolders, adapters_are_refused) {
    write("llama");
    test::put(folder / "adapter_config.json", "{}");
    expect_refused({"adapter_config.json", "merge"});
}

}  // namespace
}  // namespace amalgam
