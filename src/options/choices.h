// SPDX-License-Identifier: Apache-2.0
// The job keys whose values are a closed set: each set is an enumeration, with its names as job files have them. They
// stand below the job, so that whatever acts on a value can take it as it is.
#pragma once

#include "system/enum_names.h"

namespace amalgam {

/// recipe: where the defaults come from (job/job_recipe.h).
enum class Recipe {
    amalgam,
    reference  // the published code, its known defects included
};
template <>
inline constexpr auto enum_names<Recipe> = std::to_array<NamedValue<Recipe>>({{Recipe::amalgam, "amalgam"},
                                                                              {Recipe::reference, "reference"}});

/// device.
enum class DeviceChoice {
    automatic,  // a GPU where there is one
    cpu,
    cuda
};
template <>
inline constexpr auto enum_names<DeviceChoice> = std::to_array<NamedValue<DeviceChoice>>(
    {{DeviceChoice::automatic, "auto"}, {DeviceChoice::cpu, "cpu"}, {DeviceChoice::cuda, "cuda"}});

/// precision: of the computation. Master weights are always float32.
enum class ComputePrecision {
    automatic,  // bfloat16 where the device multiplies it: GPUs, CPUs with AMX or AVX512_BF16; else float32
    float32,
    bfloat16
};
template <>
inline constexpr auto enum_names<ComputePrecision> =
    std::to_array<NamedValue<ComputePrecision>>({{ComputePrecision::automatic, "auto"},
                                                 {ComputePrecision::float32, "float32"},
                                                 {ComputePrecision::bfloat16, "bfloat16"}});

/// data.documents: of one training sequence.
enum class DocumentBorders {
    joined,   // a text like any other: tokens see the documents before their own
    separate  // tokens see their own document only, and the last one of a document predicts nothing
};
template <>
inline constexpr auto enum_names<DocumentBorders> = std::to_array<NamedValue<DocumentBorders>>(
    {{DocumentBorders::joined, "joined"}, {DocumentBorders::separate, "separate"}});

/// data.packing: of the documents that training sequences are made of.
enum class DocumentPacking {
    none,     // sequences are cut from the token file as it is
    best_fit  // documents are put together so that they fill sequences whole where they can (training/best_fit.h)
};
template <>
inline constexpr auto enum_names<DocumentPacking> = std::to_array<NamedValue<DocumentPacking>>(
    {{DocumentPacking::none, "none"}, {DocumentPacking::best_fit, "best_fit"}});

/// student.key_value_expansion: how k_proj and v_proj [kv heads * dim, hidden] become [query heads * dim, hidden].
enum class KeyValueExpansion {
    per_head,  // every query head gets its own copy of its group's head: exact
    per_row    // every row is repeated in place, as the reference implementation does: mixes the channels of heads up
};
template <>
inline constexpr auto enum_names<KeyValueExpansion> = std::to_array<NamedValue<KeyValueExpansion>>(
    {{KeyValueExpansion::per_head, "per_head"}, {KeyValueExpansion::per_row, "per_row"}});

/// student.output_norm_eps: of the norms on the outputs of linear mixers.
enum class OutputNormEps {
    teacher,   // its rms_norm_eps, which every export format can express
    reference  // 1e-5, as in the published code
};
template <>
inline constexpr auto enum_names<OutputNormEps> = std::to_array<NamedValue<OutputNormEps>>(
    {{OutputNormEps::teacher, "teacher"}, {OutputNormEps::reference, "reference"}});

/// STAGE.optimizer.schedule: of the learning rates after the warm-up.
enum class Schedule {
    constant,
    cosine,
    linear,
    warmup_stable_decay  // constant, then linear over the last STAGE.optimizer.decay_fraction of the steps
};
template <>
inline constexpr auto enum_names<Schedule> = std::to_array<NamedValue<Schedule>>({{Schedule::constant, "constant"},
                                                                                  {Schedule::cosine, "cosine"},
                                                                                  {Schedule::linear, "linear"},
                                                                                  {Schedule::warmup_stable_decay,
                                                                                   "warmup_stable_decay"}});

/// align.loss: of the student's mixer output u_S against the teacher's u_T.
enum class AlignmentLoss {
    norm,     // mean over tokens of ||u_T - u_S||_2 / sqrt(hidden size), as the reference code has it
    relative  // mean over tokens of ||u_T - u_S||^2 / ||u_T||^2: layers of any scale weigh the same
};
template <>
inline constexpr auto enum_names<AlignmentLoss> =
    std::to_array<NamedValue<AlignmentLoss>>({{AlignmentLoss::norm, "norm"}, {AlignmentLoss::relative, "relative"}});

/// score.gates.objective: what the gates are trained on, beside the penalty (selection/gate_training.h).
enum class GateObjective {
    kl,                     // of text, of answers and of tokens that need far context
    hidden_states,          // |h - h_T|^2 of the states after every layer, at the tokens of answers alone
    relative_hidden_states  // |h - h_T|^2 / |h_T|^2 of the same: layers of any scale weigh the same
};
template <>
inline constexpr auto enum_names<GateObjective> =
    std::to_array<NamedValue<GateObjective>>({{GateObjective::kl, "kl"},
                                              {GateObjective::hidden_states, "hidden_states"},
                                              {GateObjective::relative_hidden_states, "relative_hidden_states"}});

/// score.gates.penalty_schedule: of the penalty on open gates.
enum class PenaltySchedule {
    rising,  // by the same factor every step, up to what closing all gates costs
    fixed    // score.gates.penalty itself, in every step
};
template <>
inline constexpr auto enum_names<PenaltySchedule> = std::to_array<NamedValue<PenaltySchedule>>(
    {{PenaltySchedule::rising, "rising"}, {PenaltySchedule::fixed, "fixed"}});

/// What of a model is spread over the ranks: the strategies of ZeRO and FSDP (Rajbhandari et al., arXiv 1910.02054;
/// Zhao et al., arXiv 2304.11277).
enum class ShardingStrategy {
    none,       // every rank has everything
    optimizer,  // weights whole; gradients, masters and moments sharded (ZeRO-2)
    full,       // weights too; whole only while they are used (ZeRO-3)
    hybrid      // full within a node; nodes are replicas of each other
};
template <>
inline constexpr auto enum_names<ShardingStrategy> =
    std::to_array<NamedValue<ShardingStrategy>>({{ShardingStrategy::none, "none"},
                                                 {ShardingStrategy::optimizer, "optimizer"},
                                                 {ShardingStrategy::full, "full"},
                                                 {ShardingStrategy::hybrid, "hybrid"}});

/// sharding.strategy: one of these, or the first that fits into memory.
enum class ShardingSetting { none, optimizer, full, hybrid, automatic };
template <>
inline constexpr auto enum_names<ShardingSetting> =
    std::to_array<NamedValue<ShardingSetting>>({{ShardingSetting::none, "none"},
                                                {ShardingSetting::optimizer, "optimizer"},
                                                {ShardingSetting::full, "full"},
                                                {ShardingSetting::hybrid, "hybrid"},
                                                {ShardingSetting::automatic, "auto"}});

/// Nothing for auto: the memory decides.
inline std::optional<ShardingStrategy> chosen_strategy(ShardingSetting setting) {
    return find_value<ShardingStrategy>(name_of(setting));
}

/// sharding.activations: of blocks, between forward and backward pass.
enum class Activations {
    keep,      // what a block's backward pass needs stays in memory
    recompute  // only the inputs of blocks stay; each block is computed once more in the backward pass
};
template <>
inline constexpr auto enum_names<Activations> =
    std::to_array<NamedValue<Activations>>({{Activations::keep, "keep"}, {Activations::recompute, "recompute"}});

/// sharding.reduce: of gradients on their way between ranks.
enum class ReductionPrecision { float32, bfloat16 };
template <>
inline constexpr auto enum_names<ReductionPrecision> = std::to_array<NamedValue<ReductionPrecision>>(
    {{ReductionPrecision::float32, "float32"}, {ReductionPrecision::bfloat16, "bfloat16"}});

/// evaluate.recall.kinds: where the fact that a question asks for is hidden (questions/recall_questions.h).
enum class RecallKind {
    noise,      // in a few sentences that repeat
    text,       // in validation tokens
    four_keys,  // likewise, among three other facts
    pairs,      // in a list of facts and nothing else
    passages,   // of validation tokens: one begins again, and is to go on as it did
    chains      // as four_keys, but asked by the alias of an alias of its key
};
template <>
inline constexpr auto enum_names<RecallKind> =
    std::to_array<NamedValue<RecallKind>>({{RecallKind::noise, "noise"},
                                           {RecallKind::text, "text"},
                                           {RecallKind::four_keys, "four_keys"},
                                           {RecallKind::pairs, "pairs"},
                                           {RecallKind::passages, "passages"},
                                           {RecallKind::chains, "chains"}});

/// export.precision: of written weights. float16 is not offered: small weights would underflow.
enum class ExportPrecision { bfloat16, float32 };
template <>
inline constexpr auto enum_names<ExportPrecision> = std::to_array<NamedValue<ExportPrecision>>(
    {{ExportPrecision::bfloat16, "bfloat16"}, {ExportPrecision::float32, "float32"}});

/// checkpoint.background: are checkpoints written while training goes on?
enum class BackgroundSaving {
    automatic,  // where the memory allows a copy
    always,
    never
};
template <>
inline constexpr auto enum_names<BackgroundSaving> = std::to_array<NamedValue<BackgroundSaving>>(
    {{BackgroundSaving::automatic, "auto"}, {BackgroundSaving::always, "true"}, {BackgroundSaving::never, "false"}});

}  // namespace amalgam
