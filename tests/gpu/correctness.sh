#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Are GPU results the CPU's? The unit tests from operations to training on the device; logits and greedy generation of two
# models in fp32 and bf16; a quickstart run in fp32; and the logits of exported students (gated delta nets, gated linear
# attention) in flash-linear-attention, where python3 has it.
# `reference` runs on a machine without a GPU and writes into FOLDER, `compare` on the GPU machine with that FOLDER there.
#
# usage: tests/gpu/correctness.sh reference FOLDER AMALGAM     AMALGAM: program of the CPU build
#        tests/gpu/correctness.sh compare FOLDER [RESULT.csv]
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
mode=$1 folder=$2
teacher=inputs/builtin/teacher hybrid=$folder/hybrid.h5 tokens=inputs/builtin/validation.h5

# models PROGRAM... DEVICE OUTPUT: logits and continuations of both models in both types
models() {
    local device=${*: -2:1} output=${*: -1:1}
    local program=("${@:1:$#-2}")
    for name in teacher hybrid; do
        [ $name = teacher ] && model=$teacher || model=$hybrid
        for precision in float32 bfloat16; do
            "${program[@]}" logits --model "$model" --tokens $tokens --sequence-length 300 --sequences 2 \
                --precision $precision --device "$device" --out "$output/$name-$precision.h5"
        done
        "${program[@]}" generate --model "$model" --tokens $tokens --sequence-length 100 --sequences 8 --count 48 \
            --device "$device" --out "$output/$name-generated.h5"
    done
}

# linear_attention NAME FOLDER PROGRAM...: a student of the variant NAME_v1 as FOLDER/NAME, its logits as FOLDER/NAME.h5
linear_attention() {
    local name=$1 folder=$2
    shift 2
    mpirun --oversubscribe -np 2 "$@" run jobs/quickstart.yaml --set name=linear --set output="$folder" --set device=cpu \
        --set student.variant=${name}_v1 --set precision=float32 --set 'export.formats=[]' --set score.tokens=0 \
        --set select.rule=explicit --set 'select.layers=[2, 3]' > "$folder/linear.log" 2>&1
    "$@" logits --model "$folder/linear/checkpoints/distill.h5" --tokens $tokens --sequence-length 300 --sequences 2 \
        --precision float32 --device cpu --out "$folder/$name.h5"
    "$@" export "$folder/linear/checkpoints/distill.h5" "$folder/$name" --to fla --precision float32 --teacher $teacher
    rm -r "$folder/linear"
}

if [ "$mode" = reference ]; then
    program=$3
    rm -rf "$folder"
    mkdir -p "$folder/cpu"
    mpirun --oversubscribe -np 2 "$program" run jobs/quickstart.yaml --set output="$folder" --set device=cpu \
        --set precision=float32 --set 'export.formats=[]' > "$folder/quickstart.log" 2>&1
    cp "$folder/quickstart/checkpoints/distill.h5" "$hybrid"
    cp "$folder"/quickstart/{scores,selection,evaluation}.h5 "$folder/cpu/"
    "$program" export "$hybrid" "$folder/fla" --to fla --precision float32 --teacher $teacher
    rm -r "$folder/quickstart"
    models "$program" cpu "$folder/cpu"
    for name in gla kda; do linear_attention $name "$folder" "$program"; done
else
    output=$(mktemp -d)
    for program in operations_test mixers_test model_test optimizer_test objectives_test training_test; do
        AMALGAM_TEST_DEVICE=cuda "$here/start.sh" $program --gtest_brief=1 --gtest_filter=-Weights* || failed=1
    done
    models "$here/start.sh" amalgam cuda "$output"
    "$here/start.sh" amalgam run jobs/quickstart.yaml --set output="$output" --set device=cuda --set precision=float32 \
        --set 'export.formats=[]' --set log_every_steps=50 > "$output/quickstart.log" 2>&1 || { tail -20 "$output/quickstart.log"; exit 1; }
    cp "$output"/quickstart/{scores,selection,evaluation}.h5 "$output/"
    python3 "$here/compare.py" "$folder/cpu" "$output" ${3:+--csv "$3"} || failed=1
    if python3 -c 'import fla' 2> /dev/null; then
        python3 "$here/fla_export.py" "$folder/fla" $tokens float32="$output/hybrid-float32.h5" bfloat16="$output/hybrid-bfloat16.h5" \
            ${3:+--csv "${3%.csv}-fla.csv"} || failed=1
        for name in gla kda; do
            python3 "$here/fla_export.py" "$folder/$name" $tokens float32="$folder/$name.h5" ${3:+--csv "${3%.csv}-$name.csv"} || failed=1
        done
    fi
    exit ${failed:-0}
fi
