// SPDX-License-Identifier: Apache-2.0
#include "app/measure_command.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <limits>

#include "app/any_model.h"
#include "app/output_file.h"
#include "generation/memory.h"
#include "generation/speed.h"
#include "storage/hdf5.h"
#include "system/error.h"
#include "system/log.h"

namespace amalgam {
namespace {

constexpr double nothing = std::numeric_limits<double>::quiet_NaN();

void expect_positive(const char* option, const std::vector<int64_t>& values) {
    require(!values.empty() && std::ranges::all_of(values, [](int64_t value) { return value > 0; }), option,
            ": holds a value below 1 (there is nothing to measure)");
}

/// Row-major arrays of all measurements: first_token and cache [model, context], the others [model, context, batch].
struct Measurements {
    std::vector<double> weights, cache, first_token, step, floor;
};

void measure(CausalLM& model, const std::string& name, const MeasureOptions& options, double bandwidth,
             Measurements& found) {
    found.weights.push_back(least_bytes_of_step(model, 0, 0));
    for (const int64_t context : options.contexts) {
        double first_token = nothing;
        for (const int64_t batch : options.batches) {
            AnswerSpeed speed{nothing, nothing};
            const int64_t bytes = batch * model.cache_bytes(context + options.steps);
            if (bytes < memory_for_caches(model.device())) {
                speed = measure_speed(model, context, batch, options.steps);
                first_token = speed.first_token;
                info(text(name, ": ", context, " tokens, ", batch, " sequences: first token after ",
                          1e3 * speed.first_token, " ms, ", 1e3 * speed.step, " ms a step"));
            } else {
                warn(text(name, ": ", batch, " sequences of ", context, " tokens take ", bytes >> 20,
                          " MB of cache (left out: there is no memory for them)"));
            }
            found.step.push_back(speed.step);
            found.floor.push_back(least_bytes_of_step(model, context, batch) / bandwidth);
        }
        found.first_token.push_back(first_token);
        found.cache.push_back(double(model.cache_bytes(context)));
    }
}

}  // namespace

void measure_command(const MeasureOptions& options) {
    expect_positive("--contexts", options.contexts);
    expect_positive("--batches", options.batches);
    expect_positive("--steps", {options.steps});
    expect_place_for(options.out);
    Measurements found;
    double bandwidth = 0.0;
    std::string device, precision;
    for (const std::string& path : options.models) {
        const auto model = load_any_model(path, options.device, options.precision);
        if (bandwidth == 0.0) bandwidth = copy_bandwidth(model->device());
        device = model->device().str();
        precision = model->compute_type() == at::kBFloat16 ? "bfloat16" : "float32";
        measure(*model, path, options, bandwidth, found);
    }
    using Shape = std::vector<int64_t>;
    const auto n = int64_t(options.models.size()), contexts = int64_t(options.contexts.size()),
               batches = int64_t(options.batches.size());
    write_h5_once(options.out, [&](H5File& file) {
        file.describe_file("amalgam speed", provenance());
        file.set_attribute("/", "device", device);
        file.set_attribute("/", "precision", precision);
        file.set_attribute("/", "threads", int64_t(at::get_num_threads()));
        file.set_attribute("/", "steps", options.steps);
        const auto write = [&](const char* name, const Shape& shape, const auto& values) {
            file.write(name, shape, std::span(values));
        };
        file.write("/model", options.models);
        write("/context", {contexts}, options.contexts);
        write("/batch", {batches}, options.batches);
        write("/copy_bandwidth", {}, std::vector<double>{bandwidth});
        write("/weight_bytes", {n}, found.weights);
        write("/cache_bytes", {n, contexts}, found.cache);
        write("/first_token", {n, contexts}, found.first_token);
        write("/step", {n, contexts, batches}, found.step);
        write("/step_floor", {n, contexts, batches}, found.floor);
    });
}

}  // namespace amalgam
