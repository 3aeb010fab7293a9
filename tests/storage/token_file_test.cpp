// SPDX-License-Identifier: Apache-2.0
#include "storage/token_file.h"

#include <gtest/gtest.h>

#include <numeric>
#include <set>

#include "temporary_folder.h"

namespace amalgam {
namespace {

using test::expect_error;

class TokenFiles : public test::TemporaryFolder {
  protected:
    const std::filesystem::path path = folder / "tokens.h5";
    std::vector<uint16_t> tokens = {5, 6, 7, 0, 1, 2, 3, 9};
    std::vector<int64_t> offsets = {0, 3, 3, 8};
    std::vector<int64_t> positions = {1, 4, 5};
    std::string filetype = "amalgam tokens";
    int64_t vocabulary_size = 10;

    void write() {
        std::filesystem::remove(path);
        write_h5_once(path, [&](H5File& file) {
            file.describe_file(filetype, Provenance{});
            file.set_attribute("/", "vocabulary_size", vocabulary_size);
            file.set_attribute("/", "tokenizer_sha256", std::string("abc"));
            const std::vector<int64_t> shape = {static_cast<int64_t>(tokens.size())};
            file.write("/tokens", StoredType::uint16, shape, tokens.data());
            put(file, "/document_offsets", offsets);
            if (!positions.empty()) put(file, "/answer_positions", positions);
        });
    }

    static void put(H5File& file, const std::string& name, const std::vector<int64_t>& values) {
        const std::vector<int64_t> shape = {static_cast<int64_t>(values.size())};
        file.write(name, shape, std::span<const int64_t>(values));
    }

    void expect_damaged(std::initializer_list<std::string> parts) {
        write();
        expect_error([&] { TokenFile file(path); }, ExitCode::damaged_file, {path.string()});
        expect_error([&] { TokenFile file(path); }, ExitCode::damaged_file, parts);
    }
};

TEST_F(TokenFiles, reads_what_is_there) {
    write();
    const TokenFile file(path);
    EXPECT_EQ(file.size(), 8);
    EXPECT_EQ(file.vocabulary_size(), 10);
    EXPECT_EQ(file.tokenizer_sha256(), "abc");
    EXPECT_EQ(file.sequences(3), 2);
    std::vector<int64_t> out(3);
    file.read(2, out);
    EXPECT_EQ(out, (std::vector<int64_t>{7, 0, 1}));
    file.read(8, std::span<int64_t>());
    EXPECT_THROW(file.read(6, out), Error);
    EXPECT_THROW(file.read(-1, out), Error);
}

TEST_F(TokenFiles, large_vocabularies_are_uint32) {
    write_h5_once(path, [&](H5File& file) {
        file.describe_file(filetype, Provenance{});
        file.set_attribute("/", "vocabulary_size", int64_t{4'000'000'000});
        file.set_attribute("/", "tokenizer_sha256", std::string("abc"));
        const std::vector<uint32_t> large = {3'999'999'999, 1};
        const std::vector<int64_t> shape = {2};
        file.write("/tokens", StoredType::uint32, shape, large.data());
        put(file, "/document_offsets", {0, 2});
    });
    std::vector<int64_t> out(2);
    TokenFile(path).read(0, out);
    EXPECT_EQ(out, (std::vector<int64_t>{3'999'999'999, 1}));
}

TEST_F(TokenFiles, answers_are_relative_to_the_range) {
    write();
    const TokenFile file(path);
    EXPECT_EQ(file.answers(0, 8), (std::vector<int64_t>{1, 4, 5}));
    EXPECT_EQ(file.answers(1, 4), (std::vector<int64_t>{0, 3}));
    EXPECT_EQ(file.answers(2, 2), std::vector<int64_t>{});
    positions.clear();
    write();
    EXPECT_EQ(TokenFile(path).answers(0, 8), std::vector<int64_t>{});
}

TEST_F(TokenFiles, borders_are_relative_to_the_range) {
    write();
    const TokenFile file(path);
    EXPECT_EQ(file.documents(), 2) << "the empty one does not count";
    EXPECT_EQ(file.borders(0, 8), (std::vector<int64_t>{3}));
    EXPECT_EQ(file.borders(1, 4), (std::vector<int64_t>{2}));
    EXPECT_TRUE(file.borders(3, 5).empty()) << "a sequence begins a document anyway";
    EXPECT_TRUE(file.borders(0, 3).empty());
    offsets = {0, 0, 0, 8, 8};
    write();
    EXPECT_EQ(TokenFile(path).documents(), 1);
    EXPECT_TRUE(TokenFile(path).borders(0, 8).empty());
}

/// Not all of their offsets are kept in memory.
TEST_F(TokenFiles, borders_of_many_documents) {
    constexpr int64_t documents = 5000;
    positions.clear();
    offsets = {0};
    for (int64_t d = 0; d < documents; ++d) offsets.push_back(offsets.back() + d % 4);  // every fourth is empty
    tokens.assign(size_t(offsets.back()), 1);
    write();
    const TokenFile file(path);
    EXPECT_EQ(file.documents(), documents * 3 / 4);
    for (const auto& [first, count] : std::vector<std::pair<int64_t, int64_t>>{
             {0, 7500}, {0, 1}, {1533, 10}, {1536, 3}, {1537, 1000}, {3071, 2}, {7300, 200}, {7499, 1}}) {
        std::set<int64_t> expected;
        for (const int64_t offset : offsets)
            if (offset > first && offset < first + count) expected.insert(offset - first);
        EXPECT_EQ(file.borders(first, count), std::vector<int64_t>(expected.begin(), expected.end()))
            << first << ", " << count;
    }
    std::vector<int64_t> joined = {0};
    for (int64_t group = 0; group < file.document_groups(); ++group) {
        const auto found = file.group_offsets(group);
        EXPECT_EQ(found.front(), file.group_start(group));
        EXPECT_EQ(found.back(), file.group_start(group + 1));
        joined.insert(joined.end(), found.begin() + 1, found.end());
    }
    EXPECT_EQ(joined, offsets);
}

TEST_F(TokenFiles, groups_of_documents) {
    positions.clear();
    for (const int64_t documents : {1, 63, 64, 65, 128}) {
        offsets.resize(size_t(documents) + 1);
        std::iota(offsets.begin(), offsets.end(), 0);
        tokens.assign(size_t(documents), 1);
        write();
        const TokenFile file(path);
        EXPECT_EQ(file.document_groups(), documents <= 64 ? 1 : 2);
        EXPECT_EQ(file.group_offsets(file.document_groups() - 1).size(),
                  size_t(documents <= 64 ? documents : documents - 64) + 1);
        EXPECT_EQ(file.group_start(file.document_groups()), documents);
    }
}

TEST_F(TokenFiles, token_outside_the_vocabulary_is_named_with_its_position) {
    tokens[6] = 10;
    write();
    const TokenFile file(path);
    std::vector<int64_t> out(4);
    file.read(2, out);
    expect_error([&] { file.read(3, out); }, ExitCode::damaged_file, {path.string(), "token 6 is 10", "/tokens"});
}

TEST_F(TokenFiles, other_files_are_refused) {
    expect_error([&] { TokenFile file(path); }, ExitCode::bad_input, {path.string(), "no such file"});
    filetype = "amalgam scores";
    expect_damaged({"amalgam scores", "amalgam tokens"});
    test::put(path, "this is not HDF5");
    expect_error([&] { TokenFile file(path); }, ExitCode::damaged_file, {path.string(), "HDF5"});
    std::filesystem::remove(path);
    write_h5_once(path, [](H5File&) {});
    expect_error([&] { TokenFile file(path); }, ExitCode::damaged_file, {"filetype"});
}

TEST_F(TokenFiles, impossible_vocabulary) {
    vocabulary_size = 0;
    expect_damaged({"vocabulary_size is 0"});
}

TEST_F(TokenFiles, document_offsets_that_cannot_be) {
    offsets = {1, 8};
    expect_damaged({"/document_offsets", "begins with 1"});
    offsets = {0, 5, 4, 8};
    expect_damaged({"/document_offsets", "falls from 5 to 4 at element 2"});
    offsets = {0, 7};
    expect_damaged({"ends with 7", "has 8"});
    offsets = {0};
    expect_damaged({"has 1 elements"});
}

TEST_F(TokenFiles, answer_positions_that_cannot_be) {
    positions = {1, 8};
    expect_damaged({"/answer_positions", "element 1 is 8"});
    positions = {-1};
    expect_damaged({"element 0 is -1"});
    positions = {4, 4};
    expect_damaged({"sorted"});
}

TEST_F(TokenFiles, wrong_types_and_missing_parts) {
    const auto with = [&](const std::function<void(H5File&)>& fill) {
        std::filesystem::remove(path);
        write_h5_once(path, [&](H5File& file) {
            file.describe_file(filetype, Provenance{});
            fill(file);
        });
    };
    with([](H5File&) {});
    expect_error([&] { TokenFile file(path); }, ExitCode::damaged_file, {"vocabulary_size"});
    const auto attributes = [](H5File& file) {
        file.set_attribute("/", "vocabulary_size", int64_t{10});
        file.set_attribute("/", "tokenizer_sha256", std::string("abc"));
    };
    with(attributes);
    expect_error([&] { TokenFile file(path); }, ExitCode::damaged_file, {"/tokens: no such dataset"});
    with([&](H5File& file) {
        attributes(file);
        put(file, "/tokens", {1, 2});
    });
    expect_error([&] { TokenFile file(path); }, ExitCode::damaged_file, {"/tokens", "uint16"});
    with([&](H5File& file) {
        attributes(file);
        const std::vector<int64_t> square = {2, 4};
        file.write("/tokens", StoredType::uint16, square, tokens.data());
    });
    expect_error([&] { TokenFile file(path); }, ExitCode::damaged_file, {"/tokens", "2 dimensions"});
}

}  // namespace
}  // namespace amalgam
