#!/bin/sh
# Train the networks of this table by the present code, and score them:
#
#   sh results/open_mix/reproduce.sh CLEAN NOISE TEST OUT [FLAG...]
#
# CLEAN and NOISE are folders of recordings to mix, TEST is a corpus of test pairs (clean/ and noisy/), OUT is a new folder
# for runs and tables. FLAGs go to every train.py, as in "--device cuda". Length, batch, learning rate and averaging are
# those of the table. Losses, mixing and norms have changed since, so the figures differ. README.md names the old commits.
set -eu
clean=$(realpath "$1") noise=$(realpath "$2") test=$(realpath "$3") out=$(realpath -m "$4")
shift 4
cd "$(dirname "$0")/../.."

train() {  # RUN FOLDER SEED [PRESET]
    run=$1 folder=$2 seed=$3 preset=${4:+--preset $4}
    (cd "$folder" && python train.py --mix "$clean" "$noise" --run "$out/runs/$run" --seed "$seed" $preset \
        --steps 800 --batch-size 6 --crop 2 --optim.ema-decay 0.99 --optim.fall 0.875 \
        --data.validation-share 0.1 $flags)
}

flags="$*"
train bsrnn-0 baseline 0
train bsrnn-1 baseline 1
train abl1-0 abl1 0
train abl2-0 abl2 0
train abl3-0 abl3 0
train abl3-1 abl3 1
train lstm_dualpath-0 baseline 0 lstm_dualpath
train uniform31-0 abl3 0 uniform31
train bsrnn_bi-0 baseline 0 bsrnn_bi
python evaluate.py "$out"/runs/* --data "$test" --out "$out/table"
