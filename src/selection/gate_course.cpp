// SPDX-License-Identifier: Apache-2.0
#include "selection/gate_course.h"

#include <algorithm>
#include <numeric>

#include "system/error.h"

namespace amalgam {
namespace {

using Shape = std::vector<int64_t>;

const std::string group = "/gates";

void write_doubles(H5File& file, const std::string& name, const Shape& shape, const std::vector<double>& values) {
    file.write(group + "/" + name, shape, std::span<const double>(values));
}

void write_row(H5File& file, const std::string& name, const std::vector<double>& values) {
    write_doubles(file, name, {int64_t(values.size())}, values);
}

}  // namespace

std::vector<int64_t> GateCourse::order() const {
    const size_t layers = latest().size();
    std::vector<double> sum(layers);
    for (const auto& row : gates)
        for (size_t layer = 0; layer < layers; ++layer) sum[layer] += row[layer];
    std::vector<int64_t> order(layers);
    std::iota(order.begin(), order.end(), int64_t{0});
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
        const double gate = latest()[size_t(a)], other = latest()[size_t(b)];
        return gate != other ? gate > other : sum[size_t(a)] > sum[size_t(b)];
    });
    return order;
}

bool GateCourse::tells_nothing() const {
    return std::all_of(gates.begin(), gates.end(), [](const std::vector<double>& row) {
        return std::all_of(row.begin(), row.end(), [&](double gate) { return gate == row.front(); });
    });
}

void write_course(H5File& file, const GateCourse& course) {
    std::vector<double> flat;
    for (const auto& row : course.gates) flat.insert(flat.end(), row.begin(), row.end());
    write_doubles(file, "value", {int64_t(course.gates.size()), int64_t(course.latest().size())}, flat);
    const auto optional = [&](const char* name, const std::vector<double>& values) {
        if (!values.empty()) write_row(file, name, values);
    };
    optional("kl", course.kl);
    optional("recall_kl", course.recall_kl);
    optional("far_kl", course.far_kl);
    optional("state_error", course.state_error);
    write_row(file, "penalty", {course.penalty});
    write_row(file, "seconds", {course.seconds});
    file.set_attribute(group, "tokens", course.tokens);
}

std::optional<GateCourse> read_course(const H5File& file) {
    if (!file.has(group)) return std::nullopt;
    const auto expect = [&](bool right, const char* name) {
        if (!right)
            throw Error(text(file.path().string(), ": ", group, "/", name, ": does not fit the other datasets"),
                        ExitCode::damaged_file);
    };
    const Shape shape = file.describe(group + "/value").shape;
    expect(shape.size() == 2 && shape[0] > 0 && shape[1] > 0, "value");
    const std::vector<double> flat = file.read_doubles(group + "/value");
    GateCourse course;
    for (auto row = flat.begin(); row != flat.end(); row += shape[1]) course.gates.emplace_back(row, row + shape[1]);
    const auto optional = [&](const char* name, std::vector<double>& values) {
        if (!file.has(group + "/" + name)) return;
        values = file.read_doubles(group + "/" + name);
        expect(int64_t(values.size()) == course.steps(), name);
    };
    optional("kl", course.kl);
    optional("recall_kl", course.recall_kl);
    optional("far_kl", course.far_kl);
    optional("state_error", course.state_error);
    expect(course.steps() == 0 || !course.kl.empty() || !course.state_error.empty(), "kl");
    const auto number = [&](const char* name) {
        const std::vector<double> values = file.read_doubles(group + "/" + name);
        expect(values.size() == 1, name);
        return values[0];
    };
    course.penalty = number("penalty");
    course.seconds = number("seconds");
    course.tokens = file.integer_attribute(group, "tokens");
    return course;
}

void write_gate_state(const std::filesystem::path& path, const GateState& state, const Provenance& provenance) {
    write_h5_once(path, [&](H5File& file) {
        file.describe_file("amalgam gates", provenance);
        write_course(file, state.course);
        write_row(file, "first_moment", state.first_moment);
        write_row(file, "second_moment", state.second_moment);
    });
}

GateState read_gate_state(const std::filesystem::path& path) {
    const H5File file = H5File::open(path);
    file.expect_filetype("amalgam gates");
    const auto course = read_course(file);
    if (!course) throw Error(text(path.string(), ": has no ", group), ExitCode::damaged_file);
    GateState state{*course, file.read_doubles(group + "/first_moment"), file.read_doubles(group + "/second_moment")};
    for (const auto* moment : {&state.first_moment, &state.second_moment})
        if (moment->size() != course->latest().size())
            throw Error(text(path.string(), ": ", group, ": the moments are not of as many layers as the gates"),
                        ExitCode::damaged_file);
    return state;
}

}  // namespace amalgam
