// SPDX-License-Identifier: Apache-2.0
#include "storage/hdf5.h"

#include <gtest/gtest.h>
#include <hdf5_hl.h>

#include "temporary_folder.h"

namespace amalgam {
namespace {

using test::expect_error;
using Shape = std::vector<int64_t>;

class Hdf5 : public test::TemporaryFolder {
  protected:
    const std::filesystem::path path = folder / "file.h5";

    H5File written(const std::function<void(H5File&)>& fill) {
        write_h5_once(path, fill);
        return H5File::open(path);
    }
};

TEST_F(Hdf5, every_type_survives) {
    const Shape shape = {2, 2};
    const std::vector<float> f32 = {1.5f, -2, 3, 4};
    const std::vector<double> f64 = {0.1, 0.2, 0.3, 0.4};
    const std::vector<uint16_t> u16 = {0, 1, 65535, 0x3f80};
    const std::vector<uint32_t> u32 = {0, 1, 4294967295, 7};
    const std::vector<int32_t> i32 = {INT32_MIN, 0, 1, INT32_MAX};
    const std::vector<int64_t> i64 = {INT64_MIN, 0, 1, INT64_MAX};
    const H5File file = written([&](H5File& out) {
        out.write("/a/b/f32", StoredType::float32, shape, f32.data());
        out.write("/a/f64", shape, std::span<const double>(f64));
        out.write("/u16", StoredType::uint16, shape, u16.data());
        out.write("/bf16", StoredType::bfloat16, shape, u16.data());
        out.write("/u32", StoredType::uint32, shape, u32.data());
        out.write("/i32", shape, std::span<const int32_t>(i32));
        out.write("/i64", shape, std::span<const int64_t>(i64));
    });
    const auto read = [&]<class Number>(const char* name, StoredType type, std::vector<Number> buffer) {
        std::fill(buffer.begin(), buffer.end(), Number{});
        file.read(name, type, buffer.data());
        return buffer;
    };
    EXPECT_EQ(read("/a/b/f32", StoredType::float32, f32), f32);
    EXPECT_EQ(file.read_doubles("/a/f64"), f64);
    EXPECT_EQ(read("/u16", StoredType::uint16, u16), u16);
    EXPECT_EQ(read("/bf16", StoredType::bfloat16, u16), u16);
    EXPECT_EQ(read("/u32", StoredType::uint32, u32), u32);
    EXPECT_EQ(read("/i32", StoredType::int32, i32), i32);
    EXPECT_EQ(file.read_integers("/i64"), i64);
    EXPECT_EQ(file.describe("/bf16").type, StoredType::bfloat16);
    EXPECT_EQ(file.string_attribute("/bf16", "dtype"), "bfloat16");
    EXPECT_EQ(file.describe("/u32").type, StoredType::uint32);
    EXPECT_EQ(file.describe("/u32").shape, shape);
}

TEST_F(Hdf5, shapes_without_elements_and_without_dimensions) {
    const double value = 4.5;
    const H5File file = written([&](H5File& out) {
        out.write("/empty", Shape{0, 3}, std::span<const double>());
        out.write("/scalar", Shape{}, std::span<const double>(&value, 1));
        out.write("/no_names", std::vector<std::string>{});
    });
    EXPECT_EQ(file.read_doubles("/empty"), std::vector<double>{});
    EXPECT_EQ(file.describe("/empty").shape, (Shape{0, 3}));
    EXPECT_EQ(file.read_doubles("/scalar"), std::vector<double>{4.5});
    EXPECT_EQ(file.describe("/scalar").shape, Shape{});
    EXPECT_TRUE(file.read_strings("/no_names").empty());
}

TEST_F(Hdf5, strings_may_be_utf_8_and_empty) {
    const std::vector<std::string> names = {"κ", "", "longer than the others"};
    const H5File file = written([&](H5File& out) { out.write("/names", names); });
    EXPECT_EQ(file.read_strings("/names"), names);
}

/// As h5py writes them.
TEST_F(Hdf5, strings_of_variable_length_are_read) {
    const H5File file = written([&](H5File& out) {
        H5Handle type(H5Tcopy(H5T_C_S1), H5Tclose);
        H5Tset_size(type.get(), H5T_VARIABLE);
        const hsize_t count = 2;
        H5Handle space(H5Screate_simple(1, &count, nullptr), H5Sclose), scalar(H5Screate(H5S_SCALAR), H5Sclose);
        const char* strings[] = {"one", "two words"};
        H5Handle data(H5Dcreate2(out.id(), "names", type.get(), space.get(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
                      H5Dclose);
        ASSERT_GE(H5Dwrite(data.get(), type.get(), H5S_ALL, H5S_ALL, H5P_DEFAULT, strings), 0);
        H5Handle attribute(H5Acreate2(data.get(), "unit", type.get(), scalar.get(), H5P_DEFAULT, H5P_DEFAULT),
                           H5Aclose);
        ASSERT_GE(H5Awrite(attribute.get(), type.get(), strings + 1), 0);
    });
    EXPECT_EQ(file.read_strings("/names"), (std::vector<std::string>{"one", "two words"}));
    EXPECT_EQ(file.string_attribute("/names", "unit"), "two words");
}

TEST_F(Hdf5, rows_are_written_and_read_apart) {
    const std::vector<float> first = {1, 2, 3, 4}, last = {5, 6};
    const H5File file = written([&](H5File& out) {
        out.create_dataset("/rows", StoredType::float32, Shape{3, 2});
        out.write_rows("/rows", 2, 1, last.data());
        out.write_rows("/rows", 0, 2, first.data());
        out.write_rows("/rows", 3, 0, nullptr);
        EXPECT_THROW(out.write_rows("/rows", 2, 2, first.data()), Error);
    });
    EXPECT_EQ(file.read_doubles("/rows"), (std::vector<double>{1, 2, 3, 4, 5, 6}));
    std::vector<double> middle(4);
    file.read_rows("/rows", StoredType::float64, 1, 2, middle.data());
    EXPECT_EQ(middle, (std::vector<double>{3, 4, 5, 6}));
    for (auto [start, count] :
         {std::pair<int64_t, int64_t>{2, 2}, {-1, 1}, {0, -1}, {4, 0}, {INT64_MAX, 1}, {1, INT64_MAX}})
        expect_error([&] { file.read_rows("/rows", StoredType::float64, start, count, middle.data()); },
                     ExitCode::damaged_file, {path.string(), "/rows"});
}

TEST_F(Hdf5, conversions_that_lose_meaning_are_refused) {
    const std::vector<double> fractions = {0.5};
    const std::vector<int64_t> large = {int64_t{1} << 40};
    const std::vector<uint16_t> bits = {0x3f80};
    const H5File file = written([&](H5File& out) {
        out.write("/fractions", Shape{1}, std::span<const double>(fractions));
        out.write("/large", Shape{1}, std::span<const int64_t>(large));
        out.write("/bits", StoredType::bfloat16, Shape{1}, bits.data());
    });
    expect_error([&] { file.read_integers("/fractions"); }, ExitCode::damaged_file, {"/fractions", "float64", "int64"});
    expect_error([&] { file.read_doubles("/bits"); }, ExitCode::damaged_file, {"/bits", "bfloat16"});
    int32_t small = 0;
    expect_error([&] { file.read("/large", StoredType::int32, &small); }, ExitCode::damaged_file, {"/large", "int32"});
    EXPECT_EQ(file.read_doubles("/large"), std::vector<double>{double(int64_t{1} << 40)});
    uint16_t raw = 0;
    file.read("/bits", StoredType::uint16, &raw);
    EXPECT_EQ(raw, 0x3f80);
}

/// A flipped bit anywhere in a dataset, whatever it is read as.
TEST_F(Hdf5, damage_is_found_by_checksums) {
    const std::vector<double> numbers = {0.1, 0.2, 0.3};
    const std::vector<int32_t> integers = {1234567, 7654321};
    const std::vector<std::string> names = {"teacher", "student"};
    written([&](H5File& out) {
        out.write("/numbers", Shape{3}, std::span<const double>(numbers));
        out.write("/group/integers", Shape{2}, std::span<const int32_t>(integers));
        out.write("/names", names);
    });
    const std::string content = test::content_of(path);
    const auto flipped = [&](const void* data, size_t bytes, size_t at) {
        const size_t place = content.find(std::string(static_cast<const char*>(data), bytes));
        EXPECT_NE(place, std::string::npos);
        std::string damaged = content;
        damaged[place + at] = char(damaged[place + at] ^ 1);
        std::ofstream(path, std::ios::binary) << damaged;
        return H5File::open(path);
    };
    for (size_t at = 0; at < 24; ++at) {
        const H5File file = flipped(numbers.data(), 24, at);
        expect_error([&] { file.read_doubles("/numbers"); }, ExitCode::damaged_file,
                     {path.string(), "/numbers", "checksum"});
        EXPECT_EQ(file.read_integers("/group/integers"), (std::vector<int64_t>{1234567, 7654321}));
    }
    expect_error([&] { flipped(integers.data(), 8, 5).read_integers("/group/integers"); }, ExitCode::damaged_file,
                 {"/group/integers", "checksum"});
    expect_error([&] { flipped("student", 7, 0).read_strings("/names"); }, ExitCode::damaged_file,
                 {"/names", "checksum"});
}

/// So that anybody can compare it.
TEST_F(Hdf5, the_checksum_is_the_crc_32_of_zlib) {
    const std::string bytes = "123456789012";  // of which zlib.crc32 is
    const H5File file = written([&](H5File& out) { out.write("/x", StoredType::int32, Shape{3}, bytes.data()); });
    EXPECT_EQ(file.integer_attribute("/x", "crc32"), 1563749270);
}

TEST_F(Hdf5, list_has_all_datasets_of_numbers_in_order_of_names) {
    const std::vector<double> value = {1};
    const H5File file = written([&](H5File& out) {
        out.write("/b/two", Shape{1}, std::span<const double>(value));
        out.write("/a", Shape{1}, std::span<const double>(value));
        out.write("/b/one", Shape{1}, std::span<const double>(value));
        out.write("/names", std::vector<std::string>{"not a number"});
    });
    const auto paths = [&](const std::string& group) {
        std::vector<std::string> result;
        for (const auto& info : file.list(group)) result.push_back(info.path);
        return result;
    };
    EXPECT_EQ(paths("/"), (std::vector<std::string>{"/a", "/b/one", "/b/two"}));
    EXPECT_EQ(paths("/b"), (std::vector<std::string>{"/b/one", "/b/two"}));
    EXPECT_EQ(paths("/a"), std::vector<std::string>{"/a"});
    EXPECT_THROW(file.list("/none"), Error);
    EXPECT_TRUE(file.has("/b/one"));
    EXPECT_TRUE(file.has("b"));
    EXPECT_TRUE(file.has("/"));
    EXPECT_FALSE(file.has("/b/three"));
    EXPECT_FALSE(file.has("/none/one"));
}

TEST_F(Hdf5, attributes) {
    const H5File file = written([&](H5File& out) {
        out.write("/data", Shape{1}, std::vector<double>{1});
        out.set_attribute("/data", "unit", std::string("nat/token"));
        out.set_attribute("/", "empty", std::string());
        out.set_attribute("/", "count", int64_t{1} << 40);
        out.set_attribute("/", "replaced", std::string("a long old value"));
        out.set_attribute("/", "replaced", int64_t{5});
    });
    EXPECT_EQ(file.string_attribute("/data", "unit"), "nat/token");
    EXPECT_EQ(file.string_attribute("/", "empty"), "");
    EXPECT_EQ(file.integer_attribute("/", "count"), int64_t{1} << 40);
    EXPECT_EQ(file.integer_attribute("/", "replaced"), 5);
    EXPECT_TRUE(file.has_attribute("/data", "unit"));
    EXPECT_FALSE(file.has_attribute("/data", "none"));
    expect_error([&] { file.string_attribute("/", "none"); }, ExitCode::damaged_file, {path.string(), "none"});
    expect_error([&] { file.integer_attribute("/data", "unit"); }, ExitCode::damaged_file, {"unit", "not an integer"});
    expect_error([&] { file.string_attribute("/", "count"); }, ExitCode::damaged_file, {"count", "not a string"});
    EXPECT_THROW(file.has_attribute("/none", "x"), Error);
}

TEST_F(Hdf5, dimension_scales_are_attached) {
    const H5File file = written([&](H5File& out) {
        out.write("/layer", Shape{2}, std::vector<int64_t>{0, 1});
        out.write("/kl", Shape{2, 2}, std::vector<double>{1, 2, 3, 4});
        out.write("/error", Shape{2}, std::vector<double>{1, 2});
        out.attach_scale("/kl", 0, "/layer");
        out.attach_scale("/error", 0, "/layer");
        expect_error([&] { out.attach_scale("/kl", 2, "/layer"); }, ExitCode::storage, {"/kl", "dimension 2"});
        expect_error([&] { out.attach_scale("/kl", 0, "/none"); }, ExitCode::storage, {"/none"});
    });
    H5Handle data(H5Dopen2(file.id(), "/kl", H5P_DEFAULT), H5Dclose);
    H5Handle scale(H5Dopen2(file.id(), "/layer", H5P_DEFAULT), H5Dclose);
    EXPECT_GT(H5DSis_scale(scale.get()), 0);
    EXPECT_GT(H5DSis_attached(data.get(), scale.get(), 0), 0);
    EXPECT_EQ(H5DSis_attached(data.get(), scale.get(), 1), 0);
}

TEST_F(Hdf5, file_describes_itself) {
    Provenance provenance;
    provenance.software_version = "0.1.0";
    provenance.git_sha = "unknown";
    provenance.command_line = "amalgam run job.yaml";
    provenance.libraries = "Open MPI v4.1.4";
    provenance.job = "name: \"κ\"\n";
    provenance.ranks = 3;
    const H5File file = written([&](H5File& out) { out.describe_file("amalgam scores", provenance); });
    EXPECT_EQ(file.string_attribute("/", "software"), "amalgam");
    EXPECT_EQ(file.string_attribute("/", "software_version"), "0.1.0");
    EXPECT_EQ(file.string_attribute("/", "command_line"), "amalgam run job.yaml");
    EXPECT_EQ(file.string_attribute("/", "job"), "name: \"κ\"\n");
    EXPECT_EQ(file.string_attribute("/", "job_id"), "");
    EXPECT_EQ(file.integer_attribute("/", "ranks"), 3);
    EXPECT_EQ(file.string_attribute("/", "libraries").find("Open MPI v4.1.4; HDF5 1."), 0u);
    file.expect_filetype("amalgam scores");
    expect_error([&] { file.expect_filetype("amalgam tokens"); }, ExitCode::damaged_file,
                 {path.string(), "amalgam scores", "amalgam tokens"});
}

TEST_F(Hdf5, later_major_versions_are_refused) {
    const H5File file = written([&](H5File& out) {
        out.set_attribute("/", "filetype", std::string("amalgam scores"));
        const hsize_t two = 2;
        const int32_t version[2] = {2, 1};
        H5Handle space(H5Screate_simple(1, &two, nullptr), H5Sclose);
        H5Handle attribute(H5Acreate2(out.id(), "format_version", H5T_STD_I32LE, space.get(), H5P_DEFAULT, H5P_DEFAULT),
                           H5Aclose);
        H5Awrite(attribute.get(), H5T_NATIVE_INT32, version);
    });
    expect_error([&] { file.expect_filetype("amalgam scores"); }, ExitCode::damaged_file, {"format version is 2.1"});
}

TEST_F(Hdf5, missing_things_are_named) {
    expect_error([&] { H5File::open(path); }, ExitCode::bad_input, {path.string()});
    const H5File file = written([](H5File&) {});
    expect_error([&] { file.read_doubles("/none"); }, ExitCode::damaged_file, {path.string(), "/none"});
    expect_error([&] { H5File::create(path); }, ExitCode::storage, {path.string(), "exist"});
    expect_error([&] { H5File::create(folder / "no" / "x.h5"); }, ExitCode::storage, {"x.h5", "No such file"});
    testing::internal::CaptureStderr();
    EXPECT_THROW(file.read_doubles("/none"), Error);
    EXPECT_EQ(testing::internal::GetCapturedStderr(), "") << "HDF5 printed its errors itself";
}

TEST_F(Hdf5, wrong_number_of_elements_is_refused) {
    H5File file = H5File::create(path);
    EXPECT_THROW(file.write("/x", Shape{3}, std::vector<double>{1, 2}), Error);
    EXPECT_THROW(file.write("/x", Shape{-1}, std::vector<double>{}), Error);
}

TEST_F(Hdf5, writing_into_a_file_opened_for_reading_is_a_storage_error) {
    H5File file = written([](H5File&) {});
    expect_error([&] { file.write("/x", Shape{1}, std::vector<double>{1}); }, ExitCode::storage, {path.string(), "/x"});
}

TEST_F(Hdf5, truncated_file_is_damaged) {
    written([](H5File& out) { out.write("/x", Shape{1000}, std::vector<double>(1000, 1.0)); });
    std::filesystem::resize_file(path, 5000);
    expect_error([&] { H5File::open(path); }, ExitCode::damaged_file, {path.string(), "truncated"});
}

TEST_F(Hdf5, exception_while_filling_leaves_nothing) {
    expect_error([&] { write_h5_once(path, [](H5File&) { throw Error("stop", ExitCode::failure); }); },
                 ExitCode::failure, {"stop"});
    EXPECT_TRUE(std::filesystem::is_empty(folder));
}

TEST_F(Hdf5, handles_move) {
    H5Handle one(H5Screate(H5S_SCALAR), H5Sclose);
    const hid_t id = one.get();
    H5Handle two = std::move(one);
    EXPECT_FALSE(one);
    EXPECT_EQ(two.get(), id);
    two = H5Handle(H5Screate(H5S_SCALAR), H5Sclose);
    EXPECT_LT(H5Iis_valid(id) > 0 && id != two.get(), 1);
    EXPECT_TRUE(two.close());
    EXPECT_TRUE(two.close()) << "closing twice is harmless";
}

}  // namespace
}  // namespace amalgam
