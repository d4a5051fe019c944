#!/bin/sh
# What needs a GPU, for a machine that has one but cannot build: tests, rates, and the table of docs/results.md at full
# size. One build serves both kinds of machine: a program finds CUDA when it starts.
#
#     benches/gpu.sh pack FOLDER              where it is built: release binaries and Fashion-MNIST into FOLDER
#     benches/gpu.sh check FOLDER             on the other machine: src/learn/tests/gpu.rs, then rates
#     benches/gpu.sh table FOLDER SECONDS     there too: the table, for this many seconds; the next call continues
#     benches/gpu.sh results FOLDER OUTPUT    records, metrics, curves and logs, without weights
#
# FOLDER is best below target/. `table` keeps its cache in CACHE (FOLDER-cache), takes the DEVICE of its stages (auto) and
# runs the STAGES named. LIBTORCH_LIB is the folder of a libtorch with CUDA; else it is python3's PyTorch.
set -eu
cd "$(dirname "$0")/.."
step=$1
mkdir -p "$2"
folder=$(cd "$2" && pwd)
cache=${CACHE:-$folder-cache}
images=/usr/share/datasets/fashion-mnist # Debian's package dataset-fashion-mnist

# Of the folder of a libtorch or of a PyTorch: 2.11.0, without what follows a '+'.
libtorch_version() {
    cat "$1/build-version" "$1/version.py" 2>/dev/null |
        sed -n "s/^__version__ = '\([0-9.]*\).*/\1/p; s/^\([0-9][0-9.]*\).*/\1/p" | head -n 1
}

pack() {
    mkdir -p "$folder/data"
    libtorch_version "${LIBTORCH:-.libtorch}" >"$folder/libtorch-version"
    cargo build --release -p pipeline -p pipeline-learn
    cp target/release/pipeline target/release/pipeline-learn "$folder"
    for target in "--test gpu" "--bench throughput"; do
        # shellcheck disable=SC2086
        built=$(cargo test --release -p pipeline-learn $target --no-run 2>&1 | sed -n 's/.*Executable.*(\(.*\))/\1/p')
        cp "$built" "$folder/${target#* }"
    done
    strip "$folder"/pipeline "$folder"/pipeline-learn "$folder"/gpu "$folder"/throughput
    cp "$images"/*.gz "$folder/data"
}

libraries() {
    torch='import pathlib, torch; print(pathlib.Path(torch.__file__).parent / "lib")'
    LD_LIBRARY_PATH=${LIBTORCH_LIB:-$(python3 -c "$torch")}${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    export LD_LIBRARY_PATH
    # With another version than the programs were built for, what happens is not defined.
    found=$(libtorch_version "${LD_LIBRARY_PATH%%:*}/..")
    needed=$(cat "$folder/libtorch-version")
    [ "$found" = "$needed" ] || {
        echo "the programs need libtorch $needed, and this one is ${found:-of an unknown version}: set LIBTORCH_LIB to" \
            "the folder 'lib' of a libtorch $needed with CUDA, or have python3 find such a PyTorch" >&2
        exit 1
    }
}

# Warm laps of about a second each: a line of JSON per lap.
rates() {
    kept=glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=1099511627776:glibc.malloc.top_pad=67108864
    for work in "fine-tune --batch 100" "meta-weight-net --batch 100" "simclr --batch ${SIMCLR_BATCH:-1024}"; do
        for precision in f32 tf32 bf16; do
            for graph in off on; do
                echo "# $work, $precision, graph $graph"
                # shellcheck disable=SC2086
                printf '\n\n\n' | GLIBC_TUNABLES=$kept:glibc.malloc.hugetlb=1 "$folder/throughput" $work --seconds 1 \
                    --architecture "${ARCHITECTURE:-resnet18}" --precision $precision --graph $graph \
                    --threads "$(nproc)" --device "${DEVICE:-cuda:0}"
            done
        done
    done
}

# The pipeline on pipelines/fashion-mnist-methods.toml, or on a smaller version of it to try this script: LIMIT images, EPOCHS and
# SIMCLR_EPOCHS, another ARCHITECTURE.
sized() {
    command=$1
    shift
    data=$folder/data
    set -- "$@" --cache "$cache" --set "execution.device=\"${DEVICE:-auto}\"" \
        ${LIMIT:+--set "stages.data.train-limit=$LIMIT"} ${EPOCHS:+--set "stages.train.epochs=$EPOCHS"} \
        ${SIMCLR_EPOCHS:+--set "stages.simclr.epochs=$SIMCLR_EPOCHS"}
    if [ -n "${ARCHITECTURE:-}" ]; then
        set -- "$@" --set "stages.simclr.architecture=\"$ARCHITECTURE\"" --set "stages.train.architecture=\"$ARCHITECTURE\""
    fi
    # Debian compressed the files again.
    for file in train-images:idx3:train-images:cf8536b0aa1a6ac5fa3f23001093305c \
        train-labels:idx1:train-labels:10bea18fdb374794d4bb42e356e600c9 \
        test-images:idx3:t10k-images:f78720b4224f21cce2f2ccf2d7a94c9a \
        test-labels:idx1:t10k-labels:0d30e22e447f3c33dab9ed536400ac01; do
        IFS=: read -r stage kind name md5 <<-END
			$file
		END
        set -- "$@" --set "stages.$stage.url=\"file:$data/$name-$kind-ubyte.gz\"" --set "stages.$stage.md5=\"$md5\""
    done
    # SIGINT, so that a training writes its checkpoint.
    # shellcheck disable=SC2086
    PIPELINE_LEARN=$folder/pipeline-learn ${seconds:+timeout --signal=INT $seconds} \
        "$folder/pipeline" "$command" pipelines/fashion-mnist-methods.toml "$@"
}

# What others wait for first, alone on the GPU and with all cores; then half as many as there are cores.
table() {
    end=$(($(date +%s) + $1))
    for run in "1 simclr" "$((($(nproc) + 1) / 2)) ${STAGES:-table}"; do
        seconds=$((end - $(date +%s)))
        [ "$seconds" -gt 0 ] || seconds=1
        # shellcheck disable=SC2086
        sized run --jobs $run --keep-going --progress plain || {
            echo "not done yet: 'table' continues where it stopped"
            return
        }
    done
}

results() {
    mkdir -p "$1"
    sized status --json >"$1/status.json"
    (cd "$cache" && tar --create --gzip --dereference --exclude='*.safetensors' --exclude='*.gz' \
        --file - records logs latest) >"$1/results.tar.gz"
    cp "$cache"/latest/*/table/table.md "$1" 2>/dev/null || true
}

case $step in
pack) pack ;;
check)
    libraries
    "$folder/gpu" --nocapture --test-threads 1
    rates
    ;;
table)
    libraries
    table "$3"
    ;;
results) results "$3" ;;
*) echo "there is no step '$step': see the top of this file" >&2 && exit 2 ;;
esac
