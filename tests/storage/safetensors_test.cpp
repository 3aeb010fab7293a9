// SPDX-License-Identifier: Apache-2.0
// What is written can be read; the layout of the bytes is that of the format.
#include "storage/safetensors.h"

#include <gtest/gtest.h>

#include <cstring>
#include <nlohmann/json.hpp>
#include <vector>

#include "temporary_folder.h"
#include "write_safetensors.h"

namespace amalgam {
namespace {

using test::content_of;
using test::expect_error;
using test::put;
using test::TensorToWrite;
using test::write_safetensors;

class Safetensors : public test::TemporaryFolder {};

template <class Number>
std::vector<Number> read(const SafetensorsEntry& entry) {
    std::vector<Number> result(entry.bytes / sizeof(Number));
    read_tensor_bytes(entry, result.data());
    return result;
}

TEST_F(Safetensors, every_type_survives) {
    const std::vector<float> f32 = {1.5f, -2.0f, 3.0f};
    const std::vector<double> f64 = {0.1};
    const std::vector<uint16_t> half = {0x3f80, 0x4000, 0x0001};
    const std::vector<int64_t> i64 = {INT64_MIN, INT64_MAX};
    const std::vector<int32_t> i32 = {-7};
    write_safetensors(folder, {{"half", SafetensorsType::f16, {3}, half.data()},
                               {"b", SafetensorsType::bf16, {3, 1}, half.data()},
                               {"f32", SafetensorsType::f32, {3}, f32.data()},
                               {"f64", SafetensorsType::f64, {}, f64.data()},
                               {"i64", SafetensorsType::i64, {1, 2}, i64.data()},
                               {"i32", SafetensorsType::i32, {1}, i32.data()},
                               {"empty", SafetensorsType::f32, {0, 5}, nullptr}});
    const auto tensors = read_safetensors_folder(folder);
    ASSERT_EQ(tensors.size(), 7u);
    EXPECT_EQ(read<float>(tensors.at("f32")), f32);
    EXPECT_EQ(read<double>(tensors.at("f64")), f64);
    EXPECT_EQ(read<uint16_t>(tensors.at("half")), half);
    EXPECT_EQ(read<uint16_t>(tensors.at("b")), half);
    EXPECT_EQ(read<int64_t>(tensors.at("i64")), i64);
    EXPECT_EQ(read<int32_t>(tensors.at("i32")), i32);
    EXPECT_EQ(tensors.at("b").shape, (std::vector<int64_t>{3, 1}));
    EXPECT_EQ(tensors.at("f64").shape, (std::vector<int64_t>{}));
    EXPECT_EQ(tensors.at("empty").bytes, 0);
    EXPECT_EQ(tensors.at("b").type, SafetensorsType::bf16);
    for (const auto& [name, entry] : tensors)
        EXPECT_EQ(entry.offset % static_cast<int64_t>(bytes_of(entry.type)), 0) << name << " is not aligned";
}

TEST_F(Safetensors, bytes_are_those_of_the_format) {
    const std::vector<float> values = {1, 2};
    write_safetensors(folder, {{"w", SafetensorsType::f32, {2}, values.data()}});
    const std::string content = content_of(folder / "model.safetensors");
    uint64_t header_bytes = 0;
    std::memcpy(&header_bytes, content.data(), 8);
    EXPECT_EQ(header_bytes % 8, 0u);
    ASSERT_EQ(content.size(), 8 + header_bytes + 8);
    const auto header = nlohmann::json::parse(content.substr(8, header_bytes));
    EXPECT_EQ(header, nlohmann::json::parse(R"({"__metadata__": {"format": "pt"},
                                                "w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}})"));
    EXPECT_EQ(std::memcmp(content.data() + 8 + header_bytes, values.data(), 8), 0);
}

TEST_F(Safetensors, large_models_are_split_into_shards) {
    std::vector<std::vector<float>> values;
    std::vector<TensorToWrite> tensors;
    for (int i = 0; i < 5; ++i) values.emplace_back(10, float(i));  // 40 bytes each
    for (int i = 0; i < 5; ++i)
        tensors.push_back({"t" + std::to_string(i), SafetensorsType::f32, {10}, values[i].data()});
    write_safetensors(folder, tensors, 100);

    EXPECT_FALSE(exists(folder / "model.safetensors"));
    for (const char* name :
         {"model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors", "model-00003-of-00003.safetensors"})
        EXPECT_TRUE(exists(folder / name)) << name;
    const auto index = nlohmann::json::parse(content_of(folder / "model.safetensors.index.json"));
    EXPECT_EQ(index["metadata"]["total_size"], 200);
    EXPECT_EQ(index["weight_map"]["t2"], "model-00002-of-00003.safetensors");
    const auto found = read_safetensors_folder(folder);
    ASSERT_EQ(found.size(), 5u);
    for (int i = 0; i < 5; ++i) EXPECT_EQ(read<float>(found.at("t" + std::to_string(i))), values[i]);
}

TEST_F(Safetensors, tensor_larger_than_a_shard_has_one_to_itself) {
    const std::vector<float> values(10, 1);
    write_safetensors(
        folder, {{"a", SafetensorsType::f32, {10}, values.data()}, {"b", SafetensorsType::f32, {1}, values.data()}},
        16);
    EXPECT_EQ(read_safetensors_header(folder / "model-00001-of-00002.safetensors").size(), 1u);
    EXPECT_EQ(read_safetensors_header(folder / "model-00002-of-00002.safetensors").size(), 1u);
}

TEST_F(Safetensors, impossible_tensors_are_not_written) {
    const float value = 1;
    EXPECT_THROW(
        write_safetensors(folder, {{"x", SafetensorsType::f32, {1}, &value}, {"x", SafetensorsType::f32, {1}, &value}}),
        Error);
    EXPECT_THROW(write_safetensors(folder, {{"__metadata__", SafetensorsType::f32, {1}, &value}}), Error);
    EXPECT_THROW(write_safetensors(folder, {{"x", SafetensorsType::f32, {-1}, &value}}), Error);
    EXPECT_THROW(write_safetensors(folder, {{"x", SafetensorsType::f32, {INT64_MAX, 2}, &value}}), Error);
    EXPECT_TRUE(std::filesystem::is_empty(folder));
}

TEST_F(Safetensors, missing_model_is_the_users_mistake) {
    expect_error([&] { read_safetensors_folder(folder); }, ExitCode::bad_input, {folder.string()});
    expect_error([&] { read_safetensors_header(folder / "none.safetensors"); }, ExitCode::bad_input,
                 {"none.safetensors", "No such file"});
}

TEST_F(Safetensors, file_truncated_after_its_header_was_read) {
    const std::vector<float> values(10, 1);
    write_safetensors(folder, {{"x", SafetensorsType::f32, {10}, values.data()}});
    const auto entry = read_safetensors_folder(folder).at("x");
    std::filesystem::resize_file(entry.file, entry.offset + 12);
    std::vector<float> buffer(10);
    expect_error([&] { read_tensor_bytes(entry, buffer.data()); }, ExitCode::damaged_file,
                 {"model.safetensors", "truncated"});
}

}  // namespace
}  // namespace amalgam
