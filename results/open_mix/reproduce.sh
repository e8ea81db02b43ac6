#!/bin/sh
# Make again what the README shows, part by part. Times are of two cores (AMD EPYC, AVX512-BF16), those of the last two
# estimated from the speed of parts (measured: 2 hours for scoring the narrow networks).
#
#   sh results/open_mix/reproduce.sh picture                          # docs/before_after.jpg: 5 s
#   sh results/open_mix/reproduce.sh shipped TEST OUT                 # table and curve, by the shipped weights: 11 minutes
#   sh results/open_mix/reproduce.sh long CLEAN NOISE TEST OUT [FLAG…]    # trains the shipped models, scores them: 9 hours
#   sh results/open_mix/reproduce.sh seeds CLEAN NOISE TEST OUT [FLAG…]   # trains and scores 21 narrow networks: 8 hours
#
# Run it in the environment that `make test` sets up (. .venv/bin/activate). CLEAN and NOISE are folders of recordings to
# mix, TEST is a corpus of test pairs (clean/ and noisy/), OUT is a folder for runs and tables. FLAGs go to every train.py,
# as in "--device cuda". Interrupted, the same command goes on.
set -eu
cd "$(dirname "$0")/../.."
root=$PWD part=${1:-}
[ $# = 0 ] || shift

picture() {  # the longest of the shipped test pairs below 10 dB
    python - <<EOF
from pathlib import Path

from matplotlib.image import imsave

from bsbimamba import load
from bsbimamba.data.audio import read
from bsbimamba.training.logging import spectrograms

noisy, clean = (read(Path("data/sample/test", kind, "p232_219.flac")) for kind in ("noisy", "clean"))
shown = {"noisy": noisy, "enhanced": load("abl3")(noisy, 16_000), "clean": clean}
imsave("docs/before_after.jpg", spectrograms(shown))
EOF
}

score() {  # TABLE BASELINE FOLDER RUN..., runs in FOLDER
    table=$out/$1 baseline=$2 folder=$3 && shift 3
    (cd "$folder" && python "$root/evaluate.py" "$@" --data "$test" --out "$table" --baseline "$baseline")
}

train() {  # RUN FOLDER STEPS [FLAG...]
    run=$1 folder=$2 steps=$3 && shift 3
    (cd "$folder" && python train.py --mix "$clean" "$noise" --run "$out/runs/$run" --steps "$steps" "$@" $flags)
}

seeds() {  # NAME... : the runs of each
    for name; do for seed in 0 1 2; do echo "$name-$seed"; done; done
}

case $part in
picture) picture ;;
shipped)
    test=$(realpath "$1") out=$(realpath -m "$2")
    for name in abl3 bsrnn_bi; do  # with their logs, for the curve
        mkdir -p "$out/models/$name"
        cp models/$name/* "$out/models/$name"
        cp results/open_mix/long_run_$name.jsonl "$out/models/$name/metrics.jsonl"
    done
    score shipped bsrnn_bi "$out/models" abl3 bsrnn_bi
    ;;
long | seeds)
    clean=$(realpath "$1") noise=$(realpath "$2") test=$(realpath "$3") out=$(realpath -m "$4") && shift 4
    flags="$*"
    ;;
*) echo "name a part: picture, shipped, long or seeds; see the top of $0" >&2 && exit 2 ;;
esac

if [ "$part" = long ]; then
    train abl3 abl3 8000
    train bsrnn_bi baseline 8000 --preset bsrnn_bi
    score long bsrnn_bi "$out/runs" abl3 bsrnn_bi
    for name in abl3 bsrnn_bi; do python -m bsbimamba export "$out/runs/$name" -o "$out/models/$name"; done
elif [ "$part" = seeds ]; then
    # A third of the width, and sizes that compare as those of the networks in full.
    for seed in 0 1 2; do
        train narrow/abl3-$seed abl3 2000 --seed $seed --model.channels 64 --model.hidden 8 11 12
        train narrow/bsrnn_bi-$seed baseline 2000 --seed $seed --preset bsrnn_bi --model.channels 16
        train narrow/abl2-$seed abl2 2000 --seed $seed --model.channels 64 --model.hidden 32
        train narrow/lstm_dualpath-$seed baseline 2000 --seed $seed --preset lstm_dualpath \
            --model.channels 64 --model.lstm-width 63 --model.hidden 32
        train narrow/uniform31-$seed abl3 2000 --seed $seed --preset uniform31 --model.channels 64 --model.hidden 11 11 11
        train narrow/bsrnn-$seed baseline 2000 --seed $seed --model.channels 16
        train narrow/abl1-$seed abl1 2000 --seed $seed --model.channels 64 --model.hidden 32
    done
    runs=$(seeds abl3 bsrnn_bi abl2 lstm_dualpath uniform31 bsrnn abl1)
    score narrow bsrnn_bi-0 "$out/runs/narrow" $runs
    for run in $runs; do
        sed -n "/\"valid\"/s/^{/{\"run\": \"$run\", /p" "$out/runs/narrow/$run/metrics.jsonl"
    done > "$out/narrow/validation.jsonl"
    python -m results.open_mix.questions "$out/narrow"
fi
