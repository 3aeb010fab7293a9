// SPDX-License-Identifier: Apache-2.0
#include "app/model_commands.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <iostream>

#include "app/any_model.h"
#include "app/output_file.h"
#include "exports/export.h"
#include "generation/engine.h"
#include "job/job_reader.h"
#include "storage/checksum.h"
#include "storage/token_file.h"
#include "system/error.h"
#include "system/finite.h"
#include "system/log.h"
#include "training/batches.h"

namespace amalgam {
namespace {

struct Input {
    std::unique_ptr<CausalLM> model;
    at::Tensor tokens;  // [sequences, time]
};

Input load_input(const ModelCommandOptions& options, const std::string& filetype) {
    require(options.sequence_length > 0, "--sequence-length is ", options.sequence_length, " (must be at least 1)");
    require(options.sequences >= 0, "--sequences is ", options.sequences, " (must be at least 1, or 0 for all)");
    expect_place_for(options.out, filetype);
    const TokenFile file(options.tokens);
    const int64_t there = file.sequences(options.sequence_length);
    const int64_t sequences = options.sequences > 0 ? options.sequences : there;
    require(sequences > 0 && sequences <= there, options.tokens, ": holds ", there, " sequences of ",
            options.sequence_length, " tokens (", sequences, " are asked for); see --sequences and --sequence-length");
    Input input{load_any_model(options.model, options.device, options.precision),
                read_sequences(file, options.sequence_length, 0, sequences)};
    const int64_t largest = input.tokens.max().item<int64_t>(), vocabulary = input.model->config().vocabulary_size;
    require(largest < vocabulary, options.tokens, ": holds token ", largest, " (the model's vocabulary has ",
            vocabulary, ")");
    if (options.sequence_length > input.model->config().max_positions)
        warn(text("--sequence-length is ", options.sequence_length, " but the model's max_position_embeddings is ",
                  input.model->config().max_positions));
    return input;
}

void expect_finite(const ModelCommandOptions& options, const at::Tensor& logits) {
    if (all_finite({logits.const_data_ptr<float>(), size_t(logits.numel())})) return;
    throw Error(text(options.model,
                     ": computes logits that are NaN or infinite (nothing is written); has its training "
                     "diverged?"),
                ExitCode::diverged);
}

}  // namespace

void logits_command(const ModelCommandOptions& options) {
    const Input input = load_input(options, "amalgam logits");
    const int64_t sequences = input.tokens.size(0), time = input.tokens.size(1),
                  vocabulary = input.model->config().vocabulary_size;
    const at::NoGradGuard no_grad;
    write_h5_once(options.out, [&](H5File& file) {
        file.describe_file("amalgam logits", provenance());
        file.set_attribute("/", "model", options.model);
        file.create_dataset("/logits", StoredType::float32, std::vector<int64_t>{sequences, time, vocabulary});
        uint32_t checksum = 0;
        for (int64_t s = 0; s < sequences; ++s) {
            const at::Tensor tokens = input.tokens.narrow(0, s, 1).to(input.model->device());
            const at::Tensor logits = input.model->logits(tokens).to(at::kCPU, at::kFloat).contiguous();
            expect_finite(options, logits);
            file.write_rows("/logits", s, 1, logits.const_data_ptr());
            checksum = crc32_of(logits.const_data_ptr(), int64_t(logits.nbytes()), checksum);
        }
        file.set_attribute("/logits", "crc32", int64_t{checksum});
    });
}

void generate_command(const ModelCommandOptions& options) {
    require(options.count > 0, "--count is ", options.count, " (must be at least 1)");
    const Input input = load_input(options, "amalgam generation");
    const at::NoGradGuard no_grad;
    // Of a model that computes NaN every token would be as likely as every other, and one would still be chosen.
    expect_finite(options, input.model->logits(input.tokens.narrow(0, 0, 1).to(input.model->device()))
                               .to(at::kCPU, at::kFloat)
                               .contiguous());
    const int64_t sequences = input.tokens.size(0), time = input.tokens.size(1);
    std::vector<int32_t> tokens;
    for (int64_t i = 0; i < input.tokens.numel(); ++i)
        tokens.push_back(int32_t(input.tokens.const_data_ptr<int64_t>()[i]));
    std::vector<Prompt> prompts;
    for (int64_t s = 0; s < sequences; ++s)
        prompts.push_back({std::span(tokens).subspan(size_t(s * time), size_t(time)), options.count});
    std::vector<int64_t> generated;
    for (const auto& answer : generate(*input.model, prompts))
        generated.insert(generated.end(), answer.begin(), answer.end());
    write_h5_once(options.out, [&](H5File& file) {
        file.describe_file("amalgam generation", provenance());
        file.set_attribute("/", "model", options.model);
        file.write("/generated", std::vector<int64_t>{sequences, options.count}, std::span<const int64_t>(generated));
    });
}

void export_checkpoint_command(const std::string& path, const std::string& folder, const std::string& format,
                               const std::string& teacher, const std::string& precision) {
    const Checkpoint checkpoint = open_checkpoint(path);
    const H5File file = H5File::open(path);
    const std::string teacher_folder =
        teacher.empty() ? parse_job(file.string_attribute("/", "job"), path + ": attribute job").teacher.path : teacher;
    export_model(checkpoint, checkpoint.spec(), find_export_format(format),
                 value_named<ExportPrecision>("--precision", precision), teacher_folder, folder);
    std::cout << folder << '\n';
}

}  // namespace amalgam
