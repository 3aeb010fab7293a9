// SPDX-License-Identifier: Apache-2.0
// Joint gates, after FlashMorph (arXiv 2606.30562): one gate a layer between the teacher's attention and the aligned
// linear mixer (gated_pass.h), all trained at once from 1 (all softmax) down, everything else frozen. A step lowers
//
//     KL of text + recall_weight * KL of answers + far_context.weight * KL of tokens that need far context
//         + p(step) * (sum of the gates)
//
// by Adam, gates held in [0, 1]. The penalty rises (score.gates.penalty_schedule: rising) by the same factor every
// step, 1000-fold in all, up to penalty * R / L: R is what all other terms are on the first batch with all gates 0, L
// the number of layers. So gates close in the order of what they are worth beside those that are still open, over the
// whole range from all to nearly none, however large the losses of a model are. (A path of solutions on a geometric
// grid of penalties is how lasso problems are solved: Friedman, Hastie, Tibshirani, J. Stat. Softw. 33, 2010.)
//
// The published method is score.gates.objective: hidden_states with penalty_schedule: fixed and penalty: 0.1. A step
// lowers
//
//     mean over layers and tokens of answers of |h - h_T|^2 + penalty * (sum of the gates)
//
// h being the state after the layer in the gated model, before the final norm, h_T the teacher's. Text does not count
// and is not looked at. What we know of the paper (a third party's note; no code was at hand) does not settle whether
// |.|^2 is a sum over the width or its mean, nor whether the learning rate falls from 2e-2 to 2e-3 or was chosen from
// that range. Here it is the sum, and the rate stays: the mean is the same as a penalty that is larger by the width. A
// penalty of 0.1 says nothing without the scale of the states: with the built-in teacher's |h_T|^2 of 400 to 9500,
// growing from layer to layer, gates stay above 0.86. relative_hidden_states has |h - h_T|^2 / |h_T|^2 instead: every
// layer, and every teacher, weighs the same, and 0.1 on each gate is of the order of the error that gates are closed
// for.
#pragma once

#include "model/causal_lm.h"
#include "options/choices.h"
#include "selection/gate_batches.h"
#include "selection/gate_course.h"
#include "training/stop_request.h"

namespace amalgam {

struct GateSetup {
    const ScoreJob& job;
    const Communicator& world;        // over all of whose ranks batches are spread
    ContextGroup* context = nullptr;  // those of them that share sequences with this one; null: none do
    const CausalLM &teacher, &aligned;
    const GateBatches& batches;
    Activations activations;
    std::filesystem::path file;    // of the state
    int64_t save_every_steps = 0;  // 0: only when stopped, and at the end
    int64_t log_every_steps = 10;
    const Provenance& provenance;
    StopRequest& stop;
};

/// Goes on from the state in its file, if there is one. Nothing if a stop was asked for before the end: the state is
/// saved. The same bits on any number of ranks, or of groups of ranks that share sequences. Collective over the world.
/// Throws Error(diverged) if loss or gradient are not finite.
std::optional<GateCourse> train_gates(const GateSetup& setup);

}  // namespace amalgam
