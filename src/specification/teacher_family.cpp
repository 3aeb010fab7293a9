// SPDX-License-Identifier: Apache-2.0
#include "specification/teacher_family.h"

#include "specification/families/llama.h"
#include "specification/families/qwen2.h"
#include "specification/families/qwen3.h"

namespace amalgam {
namespace {

using enum DeclaredKey::Type;

/// Of the config classes of all families here (transformers 5.24, configuration_*.py).
constexpr DeclaredKey declared_by_all[] = {{"vocab_size", whole},
                                           {"hidden_size", whole},
                                           {"intermediate_size", whole},
                                           {"num_hidden_layers", whole},
                                           {"num_attention_heads", whole},
                                           {"num_key_value_heads", whole, true},
                                           {"hidden_act", text},
                                           {"max_position_embeddings", whole},
                                           {"initializer_range", real},
                                           {"rms_norm_eps", real},
                                           {"use_cache", boolean},
                                           {"tie_word_embeddings", boolean},
                                           {"pad_token_id", whole, true},
                                           {"bos_token_id", whole, true},
                                           {"eos_token_id", whole_or_list, true}};

bool is_whole(const nlohmann::json& value) {
    return value.is_number_integer();
}

template <class Is>
bool all_are(const nlohmann::json& value, Is is) {
    return value.is_array() && std::all_of(value.begin(), value.end(), is);
}

bool has_type(const nlohmann::json& value, DeclaredKey::Type type) {
    switch (type) {
        case boolean:
            return value.is_boolean();
        case whole:
            return is_whole(value);
        case real:
            return value.is_number_float();
        case number:
            return value.is_number();
        case DeclaredKey::Type::text:
            return value.is_string();
        case list_of_texts:
            return all_are(value, [](const auto& one) { return one.is_string(); });
        case whole_or_list:
            return is_whole(value) || all_are(value, is_whole);
    }
    throw std::logic_error("unknown type of a declared key");
}

const char* description(DeclaredKey::Type type) {
    switch (type) {
        case boolean:
            return "true or false";
        case whole:
            return "a whole number";
        case real:
            return "a number with a decimal point or exponent";
        case number:
            return "a number";
        case DeclaredKey::Type::text:
            return "a text";
        case list_of_texts:
            return "a list of texts";
        case whole_or_list:
            return "a whole number or a list of them";
    }
    throw std::logic_error("unknown type of a declared key");
}

}  // namespace

std::span<const TeacherFamily> teacher_families() {
    static constexpr TeacherFamily families[] = {llama_family, qwen2_family, qwen3_family};
    return families;
}

void expect_declared_types(const ConfigKeys& keys, const TeacherFamily& family) {
    const auto expect = [&](const DeclaredKey& key) {
        if (!keys.object().contains(key.name)) return;
        const nlohmann::json& value = keys.object().at(key.name);
        const bool right = value.is_null() ? key.may_be_null : has_type(value, key.type);
        require(right, keys.where(), ": \"", key.name, "\" is ", value.dump(), " (transformers takes ",
                description(key.type), key.may_be_null ? " or null" : "", " only)");
    };
    for (const DeclaredKey& key : declared_by_all) expect(key);
    for (const DeclaredKey& key : family.declared) expect(key);
}

}  // namespace amalgam
