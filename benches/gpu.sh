#!/bin/sh
# What needs a GPU, for a machine that has one but cannot build: tests, rates beside PyTorch's, and the table of
# docs/results.md at full size. One build serves both kinds of machine: a program finds CUDA when it starts.
#
#     benches/gpu.sh pack FOLDER              where it is built: release binaries, wheels and Fashion-MNIST into FOLDER
#     benches/gpu.sh check FOLDER [SECONDS]   on the other machine: tests and rates, what decides most first, in 540 s
#     benches/gpu.sh table FOLDER SECONDS     there too: the table, for this many seconds; the next call continues
#     benches/gpu.sh results FOLDER OUTPUT    records, metrics, curves and logs, without weights
#
# FOLDER is best below target/. LIBTORCH_LIB is the folder of a libtorch with CUDA; else it is python3's PyTorch.
#
# `check` needs of FOLDER only gpu, throughput, libtorch-version and wheels. Its tables are in FOLDER/check, or in the empty folder
# TABLES; at its end it says which aims are reached, and what was not run. To try it without a GPU: DEVICE=cpu, SIMCLR_BATCH, and
# BENCH, options for benches/run.py.
#
# `table` keeps its cache in CACHE (FOLDER-cache), takes the DEVICE of its stages (auto) and runs the STAGES named (table) of MANIFEST: the tries for
# its parameters are pipelines/fashion-mnist-methods-tries.toml, with the same encoder.
set -eu
cd "$(dirname "$0")/.."
step=$1
mkdir -p "$2"
folder=$(cd "$2" && pwd)
cache=${CACHE:-$folder-cache}
images=/usr/share/datasets/fashion-mnist # Debian's package dataset-fashion-mnist
manifest=${MANIFEST:-pipelines/fashion-mnist-methods.toml}

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
    # What a usual PyTorch does not bring, for the Python of the other machine. Two versions of one stop the installation of all.
    rm -rf "$folder/wheels"
    python3 -m pip download --quiet --no-deps --only-binary=:all: --python-version "${PYTHON_VERSION:-3.12}" \
        --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
        --dest "$folder/wheels" higher kornia kornia-rs ||
        echo "WITHOUT higher and kornia: their peers will not run there" >&2
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

# A part of `check`, in at most so many seconds and what is left of the time. Another one goes on if it fails.
part() {
    most=$1
    name=$2
    shift 2
    left=$((end - $(date +%s)))
    [ "$left" -lt "$most" ] || left=$most
    echo "# $name: $left s at most"
    if [ "$left" -lt 10 ]; then
        failed="$failed; $name: NOT RUN, no time was left"
    elif ! timeout --kill-after=5 "$left" "$@"; then
        failed="$failed; $name: failed, or was not done in $left s"
    fi
}

# Ours beside PyTorch's, warm, in turns. The comparison is what the title has before a comma.
compare() {
    most=$1
    title=$2
    shift 2
    # shellcheck disable=SC2086
    part "$most" "$title" python3 benches/run.py --built "$folder" --device "${DEVICE:-cuda:0}" --threads "$(nproc)" \
        --rounds 3 --seconds 1 ${SIMCLR_BATCH:+--simclr-batch $SIMCLR_BATCH} "$@" --only "${title%%,*}" ${BENCH:-} \
        --output "$tables/$(echo "$title" | tr -d , | tr ' ' -).md"
}

# The programs that a table names as not run; not those that the end of the time stopped, as then the whole part is named.
lacking() {
    for table in "$tables"/*.md; do
        comparison=$(basename "$table" .md)
        sed -n "/ yet |/d; s/;/,/g; s/^|[^|]*| \([^|]*\) | not run: \([^|]*\) |.*/; $comparison, \1: NOT RUN, \2/p" "$table"
    done | tr -d '\n'
}

check() {
    end=$(($(date +%s) + ${1:-540}))
    failed=
    tables=${TABLES:-$folder/check}
    [ -n "${TABLES:-}" ] || rm -rf "$tables"
    mkdir -p "$tables"
    [ -z "$(ls -A "$tables")" ] || {
        echo "TABLES: $tables is not empty" >&2
        exit 2
    }
    rm -rf "$folder/site"
    if ls "$folder"/wheels/*.whl >/dev/null 2>&1; then
        python3 -m pip install --quiet --no-index --no-deps --upgrade --target "$folder/site" "$folder"/wheels/*.whl ||
            failed="$failed; the wheels could not be installed"
        export PYTHONPATH="$folder/site${PYTHONPATH:+:$PYTHONPATH}"
    fi
    for package in torchvision PIL higher kornia; do
        # An import takes seconds.
        python3 -c "import importlib.util as i, sys; sys.exit(i.find_spec('$package') is None)" ||
            failed="$failed; python3 has no $package: its peers are NOT RUN"
    done
    python3 -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' ||
        failed="$failed; python3 finds no GPU: src/learn/tests/gpu.rs tests NOTHING"
    bits=a_replayed_step_does_what_its_operations_do
    part 150 "steps replayed, to the bit" "$folder/gpu" --nocapture --test-threads 1 --exact $bits
    compare 130 "Meta-Weight-Net"
    compare 210 "SimCLR" --rounds 5
    compare 170 "fine-tuning resnet18" --eager
    part 300 "the other tests" "$folder/gpu" --nocapture --test-threads 1 --skip $bits
    # To start it takes minutes, and may need a compiler: others do not wait for it.
    compare 150 "fine-tuning resnet18, compiled" --compile --programs "compiled-graphs" "pipeline, tf32" "pipeline, bf16"
    compare 180 "SimCLR, compiled" --compile --programs "PyTorch, compiled" "pipeline, tf32, end to end" "pipeline, bf16, end to end"
    compare 150 "fine-tuning resnet50"
    compare 150 "augmentation"
    if grep -h -E 'reached|REACHED|DECIDED' "$tables"/*.md; then
        failed=$failed$(lacking)
    else
        failed="$failed; NOTHING WAS COMPARED"
    fi
    [ -z "$failed" ] || {
        echo "$failed" | sed 's/^; /not all is decided:\n/; s/; /\n/g' >&2
        exit 1
    }
}

# The pipeline on the manifest, or on a smaller version of it to try this script: LIMIT images, EPOCHS and SIMCLR_EPOCHS, another
# ARCHITECTURE.
sized() {
    command=$1
    shift
    data=$folder/data
    set -- "$@" --cache "$cache" --set "execution.device=\"${DEVICE:-auto}\"" \
        ${LIMIT:+--set "stages.data.train-limit=$LIMIT"} ${EPOCHS:+--set "stages.train.epochs=$EPOCHS"} \
        ${SIMCLR_EPOCHS:+--set "stages.simclr.epochs=$SIMCLR_EPOCHS"}
    if [ -n "${LIMIT:-}" ] && grep -q '^\[stages\.judged\]' "$manifest"; then
        set -- "$@" --set "stages.judged.train-limit=$LIMIT"
    fi
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
        "$folder/pipeline" "$command" "$manifest" "$@"
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
    for table in "$cache"/latest/*/table/table.md; do
        # Each experiment of the cache has its own.
        experiment=$(basename "$(dirname "$(dirname "$table")")")
        [ ! -e "$table" ] || cp "$table" "$1/$experiment.md"
    done
}

case $step in
pack) pack ;;
check)
    libraries
    check "${3:-}"
    ;;
table)
    libraries
    table "$3"
    ;;
results) results "$3" ;;
*) echo "there is no step '$step': see the top of this file" >&2 && exit 2 ;;
esac
