// SPDX-License-Identifier: Apache-2.0
#include "storage/content_digest.h"

#include "temporary_folder.h"

namespace amalgam {
namespace {

namespace fs = std::filesystem;

class ContentDigest : public test::TemporaryFolder {
  protected:
    const fs::path path = folder / "input";
    std::string digest_of(const std::string& content, int64_t whole_up_to = whole_digest_bytes) const {
        test::put(path, content);
        return content_digest(path, whole_up_to);
    }
};

TEST_F(ContentDigest, of_a_copy_is_the_same_whenever_it_was_made) {
    const std::string digest = digest_of("content");
    fs::last_write_time(path, fs::file_time_type::clock::now() - std::chrono::hours(100));
    EXPECT_EQ(content_digest(path), digest);
    fs::copy_file(path, folder / "copy");
    EXPECT_EQ(content_digest(folder / "copy"), digest);
    EXPECT_NE(digest_of("Content"), digest) << "the same size";
    EXPECT_NE(digest_of("content "), digest);
    EXPECT_EQ(digest_of("content"), digest);
}

TEST_F(ContentDigest, changes_with_every_byte) {
    const std::string content((3 << 20) + 5, 'x');
    const std::string digest = digest_of(content);
    for (const size_t place : {size_t{0}, size_t{1} << 20, (size_t{2} << 20) + 77, content.size() - 1}) {
        std::string changed = content;
        changed[place] = 'y';
        EXPECT_NE(digest_of(changed), digest) << place;
    }
}

/// Of large files the beginning, the end and blocks between; here 100 MiB would be large.
TEST_F(ContentDigest, of_a_large_file_takes_samples) {
    std::string content(size_t{100} << 20, 'x');
    const int64_t whole_up_to = 1 << 20;
    const std::string digest = digest_of(content, whole_up_to);
    const auto with_change_at = [&](size_t first, size_t count) {
        std::string changed = content;
        changed.replace(first, count, std::string(count, 'y'));
        return digest_of(changed, whole_up_to);
    };
    EXPECT_NE(with_change_at(1000, 1), digest) << "a header";
    EXPECT_NE(with_change_at(content.size() - 1, 1), digest);
    EXPECT_NE(with_change_at((size_t{50} << 20) + 5, size_t{1} << 18), digest) << "a tensor of 256 KiB";
    const size_t between = content.size() / 512 * 300 + (size_t{1} << 16);
    EXPECT_EQ(with_change_at(between, 1), digest) << "what no sample holds is not seen: the price of not reading all";
    EXPECT_NE(digest_of(content + "x", whole_up_to), digest);
}

TEST_F(ContentDigest, of_nothing_is_bad_input) {
    test::expect_error([&] { content_digest(path); }, ExitCode::bad_input, {path.string()});
}

}  // namespace
}  // namespace amalgam
