// SPDX-License-Identifier: Apache-2.0
// What an exported folder holds and what is refused. That transformers computes the same is tested in tests/parity.
#include "exports/export.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "../model/small_model.h"
#include "../storage/temporary_folder.h"
#include "exports/export_check.h"
#include "exports/tokenizer_files.h"
#include "mixers/softmax_attention/neutral_norm.h"

namespace amalgam {
namespace {

using nlohmann::json;
using test::expect_error;

json read_json(const std::filesystem::path& path) {
    std::ifstream stream(path);
    return json::parse(stream);
}

class Export : public test::TemporaryFolder {
  protected:
    Export() { std::filesystem::create_directories(teacher); }

    void run(const ModelSpec& spec, const std::string& format = "qwen3_5",
             ExportPrecision precision = ExportPrecision::float32) {
        const auto model = test::small_model(spec, 1, /*trainable=*/true);
        export_model(ModelSource(*model, "the student"), spec, find_export_format(format), precision, teacher, target);
    }
    void expect_refused(const ModelSpec& spec, std::initializer_list<std::string> parts,
                        const std::string& format = "qwen3_5") {
        expect_error([&] { run(spec, format); }, ExitCode::bad_input, parts);
        EXPECT_FALSE(std::filesystem::exists(target)) << "refused before anything is written";
    }

    const std::filesystem::path teacher = folder / "teacher", target = folder / "target";
    const ModelSpec hybrid{test::small_config("qwen2"), keep_softmax(3, test::linear_mixer, {1}), {}};
};

TEST(NeutralNorm, weights_are_exact_in_bfloat16_and_undo_the_scale) {
    for (const double eps : {1e-5, 1e-6, 1e-12, 1e-30})
        for (const double mean_square : {1.0, 1e4, 1e8}) {
            const double scale = neutral_scale(mean_square, eps);
            EXPECT_EQ(std::exp2(std::round(std::log2(scale))), scale) << "a power of two";
            EXPECT_LE(mean_square * scale * scale / 2, std::ldexp(eps, -22));
            EXPECT_GT(float(scale * scale / eps), 0.0f) << "nothing underflows";
            const auto [a, b] = neutral_norm_weights(eps, scale);
            for (const double stored : {a, b}) EXPECT_EQ(double(float(at::BFloat16(float(stored)))), stored);
            EXPECT_NEAR((1.0 + a) * (1.0 + b) / (eps / (scale * scale)), 1.0, 1e-5);
        }
    EXPECT_EQ(neutral_scale(1e-6, 1e-5), std::ldexp(1.0, -20)) << "no smaller than it must be";
}

TEST(NeutralNorm, the_bound_holds_and_counts_biases) {
    const at::Tensor weight = test::normal_numbers({16, 24}, 1), bias = 50.0 * test::normal_numbers({16}, 2);
    at::Tensor x = test::normal_numbers({200, 24}, 3);
    x = x * at::rsqrt(x.square().mean(-1, true));
    for (const at::Tensor& b : {at::Tensor(), bias}) {
        const double found = at::linear(x, weight, b).view({200, 2, 8}).square().mean(-1).max().item<double>();
        EXPECT_GE(mean_square_bound(weight, b, 8), found);
    }
    EXPECT_GT(mean_square_bound(weight, bias, 8), 4 * mean_square_bound(weight, at::Tensor(), 8));
}

TEST_F(Export, names_shapes_and_types_in_bfloat16) {
    run(hybrid, "qwen3_5", ExportPrecision::bfloat16);
    auto entries = read_safetensors_folder(target);
    const auto expect = [&](const std::string& name, SafetensorsType type, const std::vector<int64_t>& shape) {
        ASSERT_TRUE(entries.contains(name)) << name;
        EXPECT_EQ(entries.at(name).type, type) << name;
        EXPECT_EQ(entries.at(name).shape, shape) << name;
        entries.erase(name);
    };
    using enum SafetensorsType;
    for (const std::string layer : {"model.layers.0.", "model.layers.1.", "model.layers.2."}) {
        for (const char* norm : {"input_layernorm.weight", "post_attention_layernorm.weight"})
            expect(layer + norm, bf16, {24});
        for (const char* part : {"mlp.gate_proj.weight", "mlp.up_proj.weight"}) expect(layer + part, bf16, {40, 24});
        expect(layer + "mlp.down_proj.weight", bf16, {24, 40});
        if (layer == "model.layers.1.") continue;
        expect(layer + "linear_attn.in_proj_qkv.weight", bf16, {96, 24});
        expect(layer + "linear_attn.in_proj_z.weight", bf16, {32, 24});
        for (const char* part : {"in_proj_a.weight", "in_proj_b.weight"})
            expect(layer + "linear_attn." + part, bf16, {4, 24});
        expect(layer + "linear_attn.conv1d.weight", bf16, {96, 1, 4});
        for (const char* part : {"A_log", "dt_bias"}) expect(layer + "linear_attn." + part, f32, {4});
        expect(layer + "linear_attn.norm.weight", f32, {8});
        expect(layer + "linear_attn.out_proj.weight", bf16, {24, 32});
    }
    const std::string attention = "model.layers.1.self_attn.";
    expect(attention + "q_proj.weight", bf16, {64, 24});
    expect(attention + "q_proj.bias", bf16, {64});
    for (const char* part : {"k_proj", "v_proj"}) {
        expect(attention + part + ".weight", bf16, {16, 24});
        expect(attention + part + ".bias", bf16, {16});
    }
    expect(attention + "o_proj.weight", bf16, {24, 32});
    expect(attention + "o_proj.bias", bf16, {24});
    for (const char* part : {"q_norm.weight", "k_norm.weight"}) expect(attention + part, bf16, {8});
    expect("model.embed_tokens.weight", bf16, {61, 24});
    expect("model.norm.weight", bf16, {24});
    expect("lm_head.weight", bf16, {61, 24});
    for (const auto& [name, entry] : entries) ADD_FAILURE() << name << " is not known to Qwen3.5";

    const json config = read_json(target / "config.json");
    EXPECT_EQ(config["layer_types"], json({"linear_attention", "full_attention", "linear_attention"}));
    EXPECT_EQ(config["dtype"], "bfloat16");
    EXPECT_EQ(config["attention_bias"], true);
}

TEST_F(Export, a_tied_head_stays_tied_and_its_norm_unfolded) {
    ModelSpec spec = hybrid;
    spec.config = test::small_config("llama");
    run(spec, "qwen3_5", ExportPrecision::bfloat16);
    const HuggingFaceSource written(target);
    EXPECT_FALSE(written.find("lm_head.weight"));
    EXPECT_EQ(read_json(target / "config.json")["tie_word_embeddings"], true);
    const at::Tensor norm = test::random_weight("model.norm.weight", {24}, 1);
    EXPECT_TRUE(at::equal(*written.find("model.norm.weight"), norm - 1.0)) << "in fp32";
}

TEST_F(Export, linear_options_that_qwen3_5_lacks) {
    ModelSpec spec = hybrid;
    const auto refused_with = [&](const Options& options, std::initializer_list<std::string> parts) {
        spec.options = options;
        expect_refused(spec, parts);
    };
    refused_with({{"output_norm", false}}, {"no output norm"});
    refused_with({{"output_gate", false}}, {"no output gate", "fla can"});
    refused_with({{"activation", false}}, {"no SiLU"});
    refused_with({{"rope", true}}, {"rotary embedding"});
    spec.output_norm_eps = 1e-5;
    refused_with({}, {"eps is 1e-05", "student.output_norm_eps: teacher", "fla"});
    spec.config.head_dim = 6;  // hidden size / heads, as fla's attention has it
    spec.config.rms_norm_eps = 0.0;
    expect_refused(spec, {"rms_norm_eps is 0", "student.output_norm_eps: teacher"}, "fla");

    spec.config.rms_norm_eps = 1e-6;
    spec.layout = all_softmax(3);
    run(spec);  // without linear layers their options do not matter
    EXPECT_TRUE(std::filesystem::exists(target / "config.json"));
}

TEST_F(Export, windows_matter_where_softmax_is_kept) {
    ModelSpec spec = hybrid;
    spec.config.head_dim = 6;  // hidden size / heads, as fla's attention has it
    spec.config.window = {0, 16, 0};
    expect_refused(spec, {"softmax layer 1", "window of 16"});
    expect_refused(spec, {"softmax layer 1", "window"}, "fla");
    spec.config.window = {16, 0, 16};
    run(spec);
    EXPECT_TRUE(std::filesystem::exists(target / "config.json"));
}

TEST_F(Export, biases_of_the_mlp) {
    ModelSpec spec = hybrid;
    spec.config.head_dim = 6;  // hidden size / heads, as fla's attention has it
    spec.config.mlp_bias = true;
    expect_refused(spec, {"MLP has biases"});
    expect_refused(spec, {"MLP has biases"}, "fla");
}

TEST_F(Export, softmax_options_that_fla_lacks) {
    ModelSpec spec = hybrid;  // its head_dim is not hidden size / heads
    expect_refused(spec, {"head_dim 8", "qwen3_5 can"}, "fla");
    spec.config.head_dim = 6;
    spec.config.rope.rope_type = "llama3";
    expect_refused(spec, {"llama3", "qwen3_5 can"}, "fla");
    spec.config.rope.rope_type = "default";
    spec.config.qk_norm = true;
    expect_refused(spec, {"q/k norm", "qwen3_5 can"}, "fla");
    spec.layout = all_linear(3, test::linear_mixer);
    run(spec, "fla");
    EXPECT_FALSE(read_json(target / "config.json").contains("attn"));
}

TEST_F(Export, gated_linear_attention_is_flas_gla) {
    ModelSpec spec = hybrid;
    spec.layout = keep_softmax(3, "gated_linear_attention", {1});
    expect_refused(spec, {"gated_linear_attention", "fla can"});
    spec.config.head_dim = 6;  // hidden size / heads, as fla's attention has it
    run(spec, "fla");
    const json config = read_json(target / "config.json");
    EXPECT_EQ(config["model_type"], "gla");
    EXPECT_EQ(config["architectures"], json({"GLAForCausalLM"}));
    EXPECT_EQ(config["expand_k"], 1.0);
    EXPECT_EQ(config["attn"]["layers"], json({1}));
    const auto entries = read_safetensors_folder(target);
    const std::string layer = "model.layers.2.attn.";
    const std::vector<std::pair<std::string, std::vector<int64_t>>> expected = {
        {"q_proj.weight", {24, 24}},    {"k_proj.weight", {24, 24}}, {"v_proj.weight", {24, 24}},
        {"g_proj.weight", {24, 24}},    {"o_proj.weight", {24, 24}}, {"gk_proj.0.weight", {16, 24}},
        {"gk_proj.1.weight", {24, 16}}, {"gk_proj.1.bias", {24}},    {"g_norm_swish_gate.weight", {6}}};
    size_t found = 0;
    for (const auto& [name, entry] : entries) found += name.starts_with(layer);
    EXPECT_EQ(found, expected.size());
    for (const auto& [name, shape] : expected) {
        ASSERT_TRUE(entries.contains(layer + name)) << name;
        EXPECT_EQ(entries.at(layer + name).shape, shape) << name;
    }
}

TEST_F(Export, kimi_delta_attention_is_flas_kda) {
    ModelSpec spec = hybrid;
    spec.layout = keep_softmax(3, "kimi_delta_attention", {1});
    expect_refused(spec, {"kimi_delta_attention", "fla can"});
    spec.config.head_dim = 6;  // hidden size / heads, as fla's attention has it
    for (const double bound : {0.0, -5.0}) {
        spec.options = {{"short_convolution", true}, {"lower_bound", bound}};
        run(spec, "fla", ExportPrecision::bfloat16);
        const json config = read_json(target / "config.json");
        EXPECT_EQ(config["model_type"], "kda");
        EXPECT_EQ(config["architectures"], json({"KDAForCausalLM"}));
        EXPECT_EQ(config["attn"]["layers"], json({1}));
        EXPECT_EQ(config["safe_gate"], bound < 0);
        EXPECT_EQ(config["lower_bound"], bound < 0 ? json(bound) : json(nullptr));
        using enum SafetensorsType;
        const std::map<std::string, std::pair<SafetensorsType, std::vector<int64_t>>> expected = {
            {"q_proj.weight", {bf16, {24, 24}}},
            {"k_proj.weight", {bf16, {24, 24}}},
            {"v_proj.weight", {bf16, {24, 24}}},
            {"b_proj.weight", {bf16, {4, 24}}},
            {"f_proj.0.weight", {bf16, {6, 24}}},
            {"f_proj.1.weight", {bf16, {24, 6}}},
            {"g_proj.0.weight", {bf16, {6, 24}}},
            {"g_proj.1.weight", {bf16, {24, 6}}},
            {"g_proj.1.bias", {bf16, {24}}},
            {"A_log", {f32, {4}}},
            {"dt_bias", {f32, {24}}},
            {"o_norm.weight", {bf16, {6}}},
            {"o_proj.weight", {bf16, {24, 24}}},
            {"q_conv1d.weight", {bf16, {24, 1, 4}}},
            {"k_conv1d.weight", {bf16, {24, 1, 4}}},
            {"v_conv1d.weight", {bf16, {24, 1, 4}}}};
        const auto entries = read_safetensors_folder(target);
        const std::string layer = "model.layers.2.attn.";
        size_t found = 0;
        for (const auto& [name, entry] : entries) found += name.starts_with(layer);
        EXPECT_EQ(found, expected.size());
        for (const auto& [name, tensor] : expected) {
            ASSERT_TRUE(entries.contains(layer + name)) << name;
            EXPECT_EQ(entries.at(layer + name).type, tensor.first) << name;
            EXPECT_EQ(entries.at(layer + name).shape, tensor.second) << name;
        }
    }
}

TEST_F(Export, replaces_an_earlier_export) {
    run(hybrid);
    for (const char* name : {"model-00001-of-00002.safetensors", "model.safetensors.index.json", "notes.txt",
                             "model-lora.safetensors", "model.safetensors.1.host.1.tmp"})
        std::ofstream(target / name) << "old";
    run(hybrid);
    EXPECT_TRUE(std::filesystem::exists(target / "model-lora.safetensors")) << "no name of a shard";
    EXPECT_FALSE(std::filesystem::exists(target / "model-00001-of-00002.safetensors"));
    EXPECT_FALSE(std::filesystem::exists(target / "model.safetensors.index.json"));
    EXPECT_TRUE(std::filesystem::exists(target / "notes.txt"));
}

TEST_F(Export, never_into_the_teacher) {
    const auto model = test::small_model(hybrid, 1, true);
    expect_error(
        [&] {
            export_model(ModelSource(*model, "the student"), hybrid, find_export_format("qwen3_5"),
                         ExportPrecision::float32, teacher, teacher);
        },
        ExitCode::bad_input, {"teacher's folder"});
    EXPECT_TRUE(std::filesystem::is_empty(teacher));
}

TEST_F(Export, never_into_a_folder_that_it_did_not_make) {
    std::filesystem::create_directories(target / "additional_chat_templates");
    test::put(target / "additional_chat_templates" / "mine.jinja", "template");
    const auto expect_untouched = [&](const std::map<std::string, std::string>& files) {
        for (const auto& [name, content] : files) test::put(target / name, content);
        expect_error([&] { run(hybrid, "fla"); }, ExitCode::bad_input, {target.string(), "earlier export"});
        for (const auto& [name, content] : files) {
            EXPECT_EQ(test::content_of(target / name), content);
            std::filesystem::remove(target / name);
        }
        EXPECT_EQ(test::content_of(target / "additional_chat_templates" / "mine.jinja"), "template");
    };
    expect_untouched({});
    expect_untouched({{"model.safetensors", "weights"}, {"config.json", R"({"model_type": "llama"})"}});
    expect_untouched({{"config.json", R"({"model_type": "qwen3_5_text"})"}});
    expect_untouched({{"README.md", "# My model"}, {"model-lora.safetensors", "weights"}});
    std::filesystem::remove_all(target);
    test::put(target, "a file");
    expect_error([&] { run(hybrid); }, ExitCode::bad_input, {target.string(), "not a folder"});
}

TEST_F(Export, into_an_empty_folder_and_one_where_an_export_was_interrupted) {
    std::filesystem::create_directories(target);
    run(hybrid);
    std::filesystem::remove(target / "config.json");
    run(hybrid);
    std::filesystem::remove_all(target);
    std::filesystem::create_directories(target);
    test::put(target / "model.safetensors.1.host.1.tmp", "weights");
    run(hybrid);
    EXPECT_TRUE(std::filesystem::exists(target / "config.json"));
}

TEST_F(Export, tokenizer_json_is_to_be_taken_as_it_stands) {
    std::ofstream(teacher / "tokenizer.json") << "{}";
    std::ofstream(teacher / "tokenizer_config.json")
        << R"({"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<end>"})";
    std::ofstream(teacher / "chat_template.jinja") << "{{ messages }}";
    run(hybrid);
    const json expected = {{"tokenizer_class", "PreTrainedTokenizerFast"}, {"eos_token", "<end>"}};
    EXPECT_EQ(read_json(target / "tokenizer_config.json"), expected);
    EXPECT_EQ(read_json(target / "tokenizer.json"), json::object());
    EXPECT_TRUE(std::filesystem::exists(target / "chat_template.jinja"));
}

TEST_F(Export, generation_settings_come_along_and_know_whether_a_cache_can_be_used) {
    std::ofstream(teacher / "generation_config.json") << R"({"eos_token_id": [1, 2], "use_cache": true})";
    run(hybrid);
    EXPECT_EQ(read_json(target / "generation_config.json"), read_json(teacher / "generation_config.json"));
    EXPECT_EQ(read_json(target / "config.json")["use_cache"], true);
    ModelSpec linear = hybrid;
    linear.layout = all_linear(3, test::linear_mixer);
    run(linear);
    EXPECT_EQ(read_json(target / "generation_config.json"), json({{"eos_token_id", {1, 2}}, {"use_cache", false}}));
    EXPECT_EQ(read_json(target / "config.json")["use_cache"], false);
}

TEST_F(Export, named_chat_templates_come_along) {
    std::filesystem::create_directories(teacher / "additional_chat_templates");
    test::put(teacher / "additional_chat_templates" / "tool_use.jinja", "{{ tools }}");
    run(hybrid);
    test::put(target / "additional_chat_templates" / "old.jinja", "of an earlier export");
    run(hybrid);
    EXPECT_EQ(test::content_of(target / "additional_chat_templates" / "tool_use.jinja"), "{{ tools }}");
    EXPECT_FALSE(std::filesystem::exists(target / "additional_chat_templates" / "old.jinja"));
}

TEST_F(Export, tokenizer_files_that_cannot_be_read_are_found_without_an_export) {
    expect_tokenizer_files(teacher);  // a teacher without any
    const auto expect_found = [&](const char* file, std::initializer_list<std::string> parts) {
        expect_error([&] { expect_tokenizer_files(teacher); }, ExitCode::bad_input, {(teacher / file).string()});
        expect_error([&] { expect_tokenizer_files(teacher); }, ExitCode::bad_input, parts);
        std::filesystem::remove_all(teacher / file);
        expect_tokenizer_files(teacher);
    };
    for (const char* file :
         {"tokenizer.json", "tokenizer_config.json", "generation_config.json", "added_tokens.json"}) {
        test::put(teacher / file, "{\"x\": ");
        expect_found(file, {"JSON"});
    }
    test::put(teacher / "tokenizer.json", "\xef\xbb\xbf{}");
    expect_found("tokenizer.json", {"byte order mark"});
    std::filesystem::create_directory(teacher / "chat_template.jinja");
    expect_found("chat_template.jinja", {"cannot be read"});
    std::filesystem::create_symlink("nowhere", teacher / "merges.txt");
    expect_found("merges.txt", {"cannot be read"});
    test::put(teacher / "additional_chat_templates", "no folder");
    expect_found("additional_chat_templates", {"folder"});
}

TEST_F(Export, the_folder_says_what_its_users_must_know) {
    run(hybrid);
    EXPECT_TRUE(test::contains(test::content_of(target / "README.md"), "float16"));
    ModelSpec linear = hybrid;
    linear.layout = all_linear(3, test::linear_mixer);
    run(linear);
    EXPECT_FALSE(test::contains(test::content_of(target / "README.md"), "float16")) << "nothing is scaled there";
}

/// What was written, one tensor of which is changed.
class ChangedExport : public TensorSource {
  public:
    ChangedExport(const std::filesystem::path& folder, std::string name, double factor)
        : written_(folder), name_(std::move(name)), factor_(factor) {}
    std::optional<at::Tensor> find(const std::string& name) const override {
        auto found = written_.find(name);
        if (found && name == name_) *found = found->to(at::kFloat) * factor_;
        return found;
    }
    std::string where() const override { return written_.where(); }

  private:
    HuggingFaceSource written_;
    std::string name_;
    double factor_;
};

at::Tensor all_logits_alike(const TensorSource&, const json&, const ModelSpec& spec, const at::Tensor& tokens) {
    return at::zeros({1, tokens.size(1), spec.config.vocabulary_size});
}

TEST_F(Export, is_compared_with_the_student_before_it_is_published) {
    const auto model = test::small_model(hybrid, 1, /*trainable=*/true);
    const ModelSource student(*model, "the student");
    const at::Tensor tokens = test::random_tokens(1, 9, hybrid.config.vocabulary_size, 3);
    const at::Tensor found = logits_block_by_block(student, hybrid, tokens);
    EXPECT_LT(test::relative_error(found, model->logits(tokens).detach()), 1e-6);
    for (const auto precision : {ExportPrecision::float32, ExportPrecision::bfloat16})
        expect_error([&] { expect_same_logits(student, hybrid, precision, all_logits_alike, student, {}); },
                     ExitCode::failure, {"another model", "nothing was published"});
}

TEST_F(Export, every_written_tensor_counts_in_the_comparison) {
    for (const char* format : {"qwen3_5", "fla"}) {
        ModelSpec spec = hybrid;
        spec.config.head_dim = 6;  // hidden size / heads, as fla's attention has it
        run(spec, format);
        const auto model = test::small_model(spec, 1, /*trainable=*/true);
        const ModelSource student(*model, "the student");
        const json config = read_json(target / "config.json");
        const ExportReader reader = reader_of(find_export_format(format));
        const auto compare = [&](const std::string& name, double factor) {
            expect_same_logits(student, spec, ExportPrecision::float32, reader, ChangedExport(target, name, factor),
                               config);
        };
        compare("", 1.0);
        for (const auto& [name, entry] : read_safetensors_folder(target)) {
            const auto written = HuggingFaceSource(target).find(name);
            if (written->abs().max().item<double>() == 0.0) continue;  // closed gates and folded norms
            expect_error([&, name = name] { compare(name, 1.5); }, ExitCode::failure, {"another model"});
        }
    }
}

TEST_F(Export, keys_with_large_biases_and_small_eps) {
    for (const double eps : {1e-6, 1e-12}) {
        ModelSpec spec = hybrid;
        spec.config.rms_norm_eps = spec.output_norm_eps = eps;
        const auto model = test::small_model(spec, 1, /*trainable=*/true);
        model->parameters().for_each_named([&](const std::string& name, at::Tensor t, Parameter&) {
            if (name.ends_with("k_proj.bias")) t.fill_(200.0);
        });
        model->parameters().refresh_compute();
        export_model(ModelSource(*model, "the student"), spec, find_export_format("qwen3_5"), ExportPrecision::float32,
                     teacher, target);
        EXPECT_TRUE(std::filesystem::exists(target / "config.json"));
    }
    ModelSpec spec = hybrid;
    spec.config.rms_norm_eps = spec.output_norm_eps = 0.0;
    std::filesystem::remove_all(target);
    expect_refused(spec, {"rms_norm_eps is 0"});
}

/// Written scaled: tied heads, biases and the output norms of both mixers must all come out as they were.
TEST_F(Export, output_norms_with_an_eps_of_their_own_as_fla) {
    const auto compare = [&](const ModelSpec& spec) {
        run(spec, "fla");
        const auto model = test::small_model(spec, 1, /*trainable=*/true);
        const at::Tensor tokens = test::random_tokens(1, 9, spec.config.vocabulary_size, 3);
        const at::Tensor expected = model->logits(tokens).detach();
        json config = read_json(target / "config.json");
        EXPECT_EQ(config["norm_eps"], spec.output_norm_eps);
        const ExportReader reader = reader_of(find_export_format("fla"));
        const HuggingFaceSource written(target);
        EXPECT_LT(test::relative_error(reader(written, config, spec, tokens), expected), 3e-5);
        config["norm_eps"] = spec.config.rms_norm_eps;
        EXPECT_GT(test::relative_error(reader(written, config, spec, tokens), expected), 1e-3) << "eps matters here";
    };
    for (const char* family : {"llama", "qwen2"})
        for (const char* mixer : {"gated_delta_net", "gated_linear_attention"})
            for (const double of_outputs : {1e-1, 1e-4}) {
                ModelSpec spec{test::small_config(family), keep_softmax(3, mixer, {1}), {}, of_outputs};
                spec.config.rms_norm_eps = 1e-2;
                spec.config.head_dim = 6;  // hidden size / heads, as fla's attention has it
                compare(spec);
            }
}

TEST_F(Export, weights_that_are_bfloat16_numbers_already) {
    const auto model = test::small_model(hybrid, 1, /*trainable=*/true);
    model->parameters().for_each_named(
        [&](const std::string&, at::Tensor t, Parameter&) { t.copy_(t.to(at::kBFloat16)); });
    model->parameters().refresh_compute();
    export_model(ModelSource(*model, "the student"), hybrid, find_export_format("qwen3_5"), ExportPrecision::bfloat16,
                 teacher, target);
    EXPECT_TRUE(std::filesystem::exists(target / "config.json"));
}

TEST_F(Export, damaged_tokenizer_config) {
    std::ofstream(teacher / "tokenizer.json") << "{}";
    std::ofstream(teacher / "tokenizer_config.json") << "{";
    expect_error([&] { run(hybrid); }, ExitCode::bad_input, {"tokenizer_config.json", "JSON"});
    EXPECT_FALSE(std::filesystem::exists(target / "config.json"));
}

}  // namespace
}  // namespace amalgam
