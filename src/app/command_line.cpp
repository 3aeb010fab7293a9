// SPDX-License-Identifier: Apache-2.0
#include "app/command_line.h"

#include <CLI/CLI.hpp>
#include <functional>
#include <iostream>

#include "app/check_command.h"
#include "app/failure.h"
#include "app/inspect_command.h"
#include "app/measure_command.h"
#include "app/memory.h"
#include "app/model_commands.h"
#include "app/pipeline.h"
#include "comm/mpi_session.h"
#include "exports/formats.h"
#include "job/job_reader.h"
#include "job/job_writer.h"
#include "job/path_expansion.h"
#include "job/yaml_values.h"
#include "options/options.h"
#include "system/error.h"
#include "system/log.h"
#include "system/provenance.h"
#include "system/signals.h"

namespace amalgam {
namespace {

/// CLI11's own validators print the ends of open ranges with all their digits.
CLI::Validator within(const Range& range) {
    return {[range](const std::string& word) {
                const auto value = parse_real(word);
                return value && range.contains(*value) ? "" : text("must be ", range.describe(), ", not ", word);
            },
            range.describe()};
}

/// Runs what needs no MPI. Returns the exit status.
int alone(const std::function<void()>& work) {
    start_logging(0, 1, host_name());
    try {
        work();
        return int(ExitCode::success);
    } catch (const std::exception& error) {
        const Failure failure = failure_of(error);
        log_rank(LogLevel::error, failure.message);
        return int(failure.code);
    }
}

/// The pipeline under MPI. An error of all ranks ends in MPI_Finalize; an error of one rank ends the job.
int run_job(int argc, char** argv, const std::string& file, const std::vector<std::string>& overrides) {
    install_signal_handlers();  // before MPI_Init: mpirun forwards USR1, and a process without a handler dies of it
    const MpiSession session(&argc, &argv);
    start_logging(session.world().rank(), session.world().size(), host_name());
    try {
        return int(run_pipeline(file, overrides, session.world()));
    } catch (const SharedError& error) {
        if (session.world().is_root()) log_rank(LogLevel::error, error.what());
        return int(error.code());
    } catch (const std::exception& error) {
        const Failure failure = failure_of(error);
        log_rank(LogLevel::error, failure.message);
        session.abort(int(failure.code));
    }
}

}  // namespace

int run_command_line(int argc, char** argv) {
    set_command_line(argc, argv);
    keep_freed_memory();
    CLI::App app("Converts a softmax Transformer into a hybrid with linear attention, guided by KL divergence.",
                 "amalgam");
    app.set_version_flag("--version", version());
    app.require_subcommand(1);

    std::string file, model, tokens, out, format, teacher, precision = "bfloat16";
    std::vector<std::string> overrides;
    auto job_options = [&](CLI::App* command) {
        command->add_option("job", file, "job file (YAML)")->required();
        command->add_option("--set", overrides, "KEY=VALUE: overrides a key of the job file")
            ->take_all()
            ->allow_extra_args(false);
        return command;
    };
    CLI::App* run = job_options(
        app.add_subcommand("run", "the whole pipeline, under mpirun; started again, it goes on where it stopped"));

    CheckOptions check_options;
    CLI::App* check = job_options(app.add_subcommand("check", "errors in a job, and what each stage will need"));
    check->add_option("--ranks", check_options.ranks, "number of MPI ranks")
        ->check(within({.low = 1}))
        ->capture_default_str();
    check->add_option("--gpu-memory", check_options.memory_gb, "memory of a rank, GB; 0: not judged")
        ->check(within({.low = 0}))
        ->capture_default_str();
    check->add_option(
        "--device", check_options.device,
        "that it speaks for: auto, cpu (of this machine), cuda, or a kind of GPU such as H100; default: as "
        "the job says");
    check
        ->add_option("--peak", check_options.peak_tflops,
                     "peak of a rank, Tflop/s in the compute precision; 0: measured, or of a GPU's data sheet")
        ->check(within({.low = 0}))
        ->capture_default_str();
    check->add_option("--utilisation", check_options.utilisation, "assumed fraction of the peak; 0: as seen in runs")
        ->check(within({.low = 0, .high = 1}))
        ->capture_default_str();
    check->add_option("--ranks-per-node", check_options.ranks_per_node, "of them on one node, at most")
        ->check(within({.low = 1}))
        ->capture_default_str();
    check
        ->add_option("--node-bandwidth", check_options.node_bandwidth_gb,
                     "assumed to the file system from one node, GB/s")
        ->check(within({.low = 0, .low_excluded = true}))
        ->capture_default_str();
    check->add_option("--shape", check_options.shape,
                      "sizes of this teacher (e.g. qwen2.5-72b) instead of those in teacher.path");

    CLI::App* run_folder =
        job_options(app.add_subcommand("run-folder", "prints where a job puts its run, OUTPUT/NAME, for scripts"));

    CLI::App* defaults = app.add_subcommand("defaults", "the commented default job");
    CLI::App* inspect = app.add_subcommand("inspect", "what a result file or checkpoint holds");
    inspect->add_option("file", file, "HDF5 file")->required();

    ModelCommandOptions options;
    auto model_options = [&](CLI::App* command) {
        command->add_option("--model", options.model, "a teacher's Hugging Face folder, or a checkpoint of a run")
            ->required();
        command->add_option("--tokens", options.tokens, "HDF5 token file")->required();
        command->add_option("--out", options.out, "HDF5 file to write")->required();
        command->add_option("--sequence-length", options.sequence_length, "tokens")->capture_default_str();
        command->add_option("--sequences", options.sequences, "number of sequences; 0: all")->capture_default_str();
        command->add_option("--precision", options.precision, "auto, float32 or bfloat16")->capture_default_str();
        command->add_option("--device", options.device, "auto, cpu or cuda")->capture_default_str();
        return command;
    };
    CLI::App* logits = model_options(app.add_subcommand("logits", "the logits of any model we can read"));
    CLI::App* generate = model_options(app.add_subcommand("generate", "greedy continuation of every sequence"));
    generate->add_option("--count", options.count, "tokens to generate")->capture_default_str();

    MeasureOptions measure_options;
    CLI::App* measure = app.add_subcommand("measure", "speed and memory of generation, by context and batch");
    measure
        ->add_option("--model", measure_options.models,
                     "a teacher's Hugging Face folder, or a checkpoint of a run; several are compared")
        ->required();
    measure->add_option("--out", measure_options.out, "HDF5 file to write")->required();
    measure->add_option("--contexts", measure_options.contexts, "tokens that a sequence has seen")
        ->delimiter(',')
        ->capture_default_str();
    measure->add_option("--batches", measure_options.batches, "sequences at a time")
        ->delimiter(',')
        ->capture_default_str();
    measure->add_option("--steps", measure_options.steps, "tokens in a run")->capture_default_str();
    measure->add_option("--precision", measure_options.precision, "auto, float32 or bfloat16")->capture_default_str();
    measure->add_option("--device", measure_options.device, "auto, cpu or cuda")->capture_default_str();

    CLI::App* export_command = app.add_subcommand("export", "a student folder from any checkpoint");
    export_command->add_option("checkpoint", model, "checkpoint of a run")->required();
    export_command->add_option("folder", out, "folder to write: a new one, an empty one, or an earlier export")
        ->required();
    std::string formats;
    for (const ExportFormat* one : export_formats()) formats += (formats.empty() ? "" : " or ") + one->name();
    export_command->add_option("--to", format, formats)->required();
    export_command->add_option("--teacher", teacher,
                               "teacher's folder, for the tokenizer (default: the one in the checkpoint's job)");
    export_command->add_option("--precision", precision, "bfloat16 or float32")->capture_default_str();

    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        return app.exit(error) == 0 ? int(ExitCode::success) : int(ExitCode::bad_input);
    }
    if (*run) return run_job(argc, argv, file, overrides);
    return alone([&] {
        for (auto [name, path] : {std::pair("--model", &options.model),
                                  {"--tokens", &options.tokens},
                                  {"--out", &options.out},
                                  {"--out", &measure_options.out},
                                  {"--teacher", &teacher}})
            *path = expanded_path(*path, name);  // a shell leaves --out=~/FILE as it is
        if (*check) check_command(file, overrides, check_options);
        if (*run_folder) std::cout << read_job(file, overrides).run_folder() << '\n';
        if (*defaults) std::cout << commented_defaults();
        if (*inspect) inspect_command(file);
        if (*logits) logits_command(options);
        if (*generate) generate_command(options);
        if (*measure) measure_command(measure_options);
        if (*export_command) export_checkpoint_command(model, out, format, teacher, precision);
    });
}

}  // namespace amalgam
