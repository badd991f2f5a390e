#!/bin/bash
#SBATCH --job-name=spatl
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --time=12:00:00
#SBATCH --output=spatl-%j.log
#SBATCH --signal=B:TERM@120
#
# A Ray cluster for as long as a Slurm job lasts, and one command on it:
#
#   sbatch cluster/slurm.sh spatl run my.yaml results.folder=$SCRATCH/results engine.address=auto
#   sbatch --nodes=4 --gpus-per-node=4 cluster/slurm.sh python tune/sweep.py my_grid.yaml --address auto
#
# From the checkout, whose .venv all nodes must see. The job's last two minutes go to ending what runs: `spatl resume`
# goes on with it in the next job.
set -eu

if [ $# = 0 ]; then
    echo "a command must be given, such as: sbatch $0 spatl run demo engine.address=auto" >&2
    exit 2
fi

# shellcheck disable=SC1091 # made by make demo
source "${SPATL_ENVIRONMENT:-$PWD/.venv}/bin/activate"
export OMP_NUM_THREADS=1 RAY_USAGE_STATS_ENABLED=0

# A token of this job's own: others on these machines cannot use the cluster.
RAY_AUTH_TOKEN=$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN

port=$((20000 + SLURM_JOB_ID % 10000)) # two jobs may share a machine
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
address=$(srun --nodes=1 --ntasks=1 -w "$head" hostname --ip-address | awk '{print $1}')

start() { # on a node, with what the job has there, which another node may have less of
    local node=$1
    shift
    # shellcheck disable=SC2016 # for the shell over there
    srun --nodes=1 --ntasks=1 --overlap --cpu-bind=none -w "$node" bash -c \
        'ray start "$@" --num-cpus="$SLURM_CPUS_ON_NODE" --num-gpus="${SLURM_GPUS_ON_NODE:-0}" --block' ray "$@" &
}

start "$head" --head --node-ip-address="$address" --port="$port" --dashboard-host=127.0.0.1
for _ in $(seq 60); do
    ray status --address="$address:$port" >/dev/null 2>&1 && break
    sleep 2
done
for node in "${nodes[@]:1}"; do
    start "$node" --address="$address:$port"
done

# Waits until all nodes are there.
python - "$address:$port" "${#nodes[@]}" <<'PYTHON'
import sys, time
import ray
address, count = sys.argv[1], int(sys.argv[2])
ray.init(address=address, log_to_driver=False)
until = time.monotonic() + 300
while (there := sum(node["Alive"] for node in ray.nodes())) < count:
    if time.monotonic() > until:
        sys.exit(f"{there} of {count} nodes have joined within 5 minutes")
    time.sleep(1)
PYTHON

export RAY_ADDRESS="$address:$port"
"$@" &
command=$!
trap 'kill -TERM "$command"' TERM
status=0
wait "$command" || status=$?
# A signal ends the first wait; the command then closes its results.
if kill -0 "$command" 2>/dev/null; then
    status=0
    wait "$command" || status=$?
fi
exit "$status" # Slurm ends what is left of the cluster
