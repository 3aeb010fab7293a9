// SPDX-License-Identifier: Apache-2.0
// Headers that lie. Every one must be refused before anything is read, with a message that says what is wrong.
#include <gtest/gtest.h>

#include "storage/safetensors.h"
#include "temporary_folder.h"

namespace amalgam {
namespace {

using test::expect_error;
using test::put;

class DamagedSafetensors : public test::TemporaryFolder {
  protected:
    static std::string length(uint64_t bytes) { return {reinterpret_cast<const char*>(&bytes), 8}; }

    /// A file of this header and so many bytes of data.
    std::filesystem::path file(const std::string& header, size_t data_bytes, const char* name = "model.safetensors") {
        put(folder / name, length(header.size()) + header + std::string(data_bytes, '\1'));
        return folder / name;
    }

    void expect_damaged(const std::string& header, size_t data_bytes, std::initializer_list<std::string> parts) {
        const auto path = file(header, data_bytes);
        expect_error([&] { read_safetensors_header(path); }, ExitCode::damaged_file, {path.string()});
        expect_error([&] { read_safetensors_header(path); }, ExitCode::damaged_file, parts);
    }
};

TEST_F(DamagedSafetensors, the_sound_file_is_accepted) {
    const auto tensors = read_safetensors_header(file(
        R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"BF16","shape":[],"data_offsets":[8,10]}})",
        10));
    EXPECT_EQ(tensors.size(), 2u);
    EXPECT_EQ(tensors.at("b").bytes, 2);
}

TEST_F(DamagedSafetensors, length_of_the_header) {
    const auto path = folder / "model.safetensors";
    const auto refuse = [&](const std::string& content, const std::string& part) {
        put(path, content);
        expect_error([&] { read_safetensors_header(path); }, ExitCode::damaged_file, {path.string(), part});
    };
    refuse("", "has only 0 bytes");
    refuse("1234567", "has only 7 bytes");
    refuse(length(1000) + "{}", "claims a header of 1000 bytes but has only 2");
    refuse(length(UINT64_MAX) + "{}", "claims a header of 18446744073709551615 bytes");
    refuse(length(uint64_t{1} << 63) + "{}", "claims a header of");
    refuse(length(100'000'001) + "{}", "is it a safetensors file?");
}

TEST_F(DamagedSafetensors, json) {
    expect_damaged("", 0, {"not valid JSON"});
    expect_damaged("{\"a\":", 0, {"not valid JSON"});
    expect_damaged("{} {}", 0, {"not valid JSON"});
    expect_damaged("[1]", 0, {"not a JSON object"});
    expect_damaged(std::string(200000, '['), 0, {"not valid JSON"});
    expect_damaged("{\"\xff\":1}", 0, {"not valid JSON"});
}

TEST_F(DamagedSafetensors, names_given_twice) {
    expect_damaged(
        R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
        8, {"\"a\" twice"});
    expect_damaged(R"({"a":{"dtype":"F32","dtype":"F16","shape":[1],"data_offsets":[0,4]}})", 4, {"\"dtype\" twice"});
}

TEST_F(DamagedSafetensors, entries) {
    expect_damaged(R"({"a":3})", 0, {"\"a\"", "not an object"});
    expect_damaged(R"({"a":{"shape":[1],"data_offsets":[0,4]}})", 4, {"\"a\"", "has no \"dtype\""});
    expect_damaged(R"({"a":{"dtype":"F32","data_offsets":[0,4]}})", 4, {"has no \"shape\""});
    expect_damaged(R"({"a":{"dtype":"F32","shape":[1]}})", 4, {"has no \"data_offsets\""});
    expect_damaged(R"({"a":{"dtype":"F9","shape":[4],"data_offsets":[0,4]}})", 4, {"dtype is \"F9\""});
    expect_damaged(R"({"a":{"dtype":32,"shape":[1],"data_offsets":[0,4]}})", 4, {"dtype is 32"});
}

TEST_F(DamagedSafetensors, shapes) {
    expect_damaged(R"({"a":{"dtype":"F32","shape":1,"data_offsets":[0,4]}})", 4, {"\"shape\" is not a list"});
    expect_damaged(R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4, {"shape [-1]", "not a size"});
    expect_damaged(R"({"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}})", 4, {"not a size"});
    expect_damaged(R"({"a":{"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,4]}})", 4, {"not a size"});
    // 2^62 elements of 4 bytes are 0 modulo 2^64.
    expect_damaged(R"({"a":{"dtype":"F32","shape":[2147483648,2147483648],"data_offsets":[0,0]}})", 0,
                   {"larger than any file"});
    expect_damaged(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 4, {"has 4 bytes", "need 8"});
    expect_damaged(R"({"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,8]}})", 8, {"has 8 bytes", "need 4"});
}

TEST_F(DamagedSafetensors, offsets) {
    const auto with_offsets = [](const std::string& offsets) {
        return R"({"a":{"dtype":"F32","shape":[1],"data_offsets":)" + offsets + "}}";
    };
    expect_damaged(with_offsets("[0]"), 4, {"not a pair"});
    expect_damaged(with_offsets("{}"), 4, {"not a pair"});
    expect_damaged(with_offsets("[-4,0]"), 4, {"[-4,0]", "negative"});
    expect_damaged(with_offsets("[0,\"4\"]"), 4, {"not two byte positions"});
    expect_damaged(with_offsets("[4,0]"), 4, {"end before they begin"});
    expect_damaged(with_offsets("[4,8]"), 4, {"beyond the end", "truncated"});
    expect_damaged(with_offsets("[9223372036854775803,9223372036854775807]"), 4, {"beyond the end"});
    expect_damaged(with_offsets("[0,18446744073709551615]"), 4, {"not two byte positions"});
    expect_damaged(with_offsets("[0,4]"), 3, {"beyond the end", "truncated"});
    expect_damaged(with_offsets("[0,4]"), 5, {"last 1 bytes belong to no tensor"});
    expect_damaged(with_offsets("[4,8]"), 8, {"\"a\"", "4 bytes before it belong to no tensor"});
}

TEST_F(DamagedSafetensors, overlaps) {
    expect_damaged(
        R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})",
        12, {"\"a\"", "\"b\"", "overlap"});
    expect_damaged(
        R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
        4, {"overlap"});
}

TEST_F(DamagedSafetensors, index) {
    const auto index = folder / "model.safetensors.index.json";
    file(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 4, "one.safetensors");
    const auto refuse = [&](const std::string& content, std::initializer_list<std::string> parts) {
        put(index, content);
        expect_error([&] { read_safetensors_folder(folder); }, ExitCode::damaged_file, {index.string()});
        expect_error([&] { read_safetensors_folder(folder); }, ExitCode::damaged_file, parts);
    };
    refuse("{", {"not valid JSON"});
    refuse("{}", {"no \"weight_map\""});
    refuse(R"({"weight_map":[]})", {"no \"weight_map\""});
    refuse(R"({"weight_map":{}})", {"empty"});
    refuse(R"({"weight_map":{"a":3}})", {"\"a\"", "not the name of a file"});
    refuse(R"({"weight_map":{"a":"../one.safetensors"}})", {"not the name of a file in this folder"});
    refuse(R"({"weight_map":{"a":"two.safetensors"}})", {"two.safetensors", "not there"});
    refuse(R"({"weight_map":{"b":"one.safetensors"}})", {"\"b\"", "should be in one.safetensors"});
    refuse(R"({"weight_map":{"a":"one.safetensors","a":"two.safetensors"}})", {"\"a\" twice"});

    put(index, R"({"weight_map":{"a":"one.safetensors"}})");
    EXPECT_EQ(read_safetensors_folder(folder).size(), 1u);
}

}  // namespace
}  // namespace amalgam
