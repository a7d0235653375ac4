#!/bin/sh
# The unit of demos/raspberry_pi under a systemd of our own: `tests/emulated/service.sh`.
#
# Starts `systemd --user` in namespaces of its own (mounts, processes, /run, the hierarchy of cgroups
# that it keeps its units in) and takes the unit from a kill to a power cut to its end. Needs root and
# the package systemd; PYTHON names the Python that trains, by default that of .venv-device. Nothing of
# this machine's own systemd is touched. RestartSec is 3 here, so that it ends within minutes.
set -eu

here=$(cd "$(dirname "$0")/../.." && pwd)
python=${PYTHON:-$here/.venv-device/bin/python}
[ "$(id -u)" = 0 ] || { echo "service.sh needs root; run it with sudo -E." >&2; exit 2; }
[ -x /lib/systemd/systemd ] || { echo "systemd is not here; apt-get install -y systemd" >&2; exit 2; }
if [ "${SERVICE_INSIDE:-}" != yes ]; then
    export SERVICE_INSIDE=yes
    exec unshare --mount --propagation private --pid --fork --mount-proc -- "$0"
fi

mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system /run/user-of-test /run/home
mount -t tmpfs tmpfs /sys/fs/cgroup
mkdir -p /sys/fs/cgroup/systemd
mount -t cgroup -o none,name=systemd,xattr cgroup /sys/fs/cgroup/systemd
mkdir -p /sys/fs/cgroup/systemd/service-of-test
echo 0 > /sys/fs/cgroup/systemd/service-of-test/cgroup.procs
export XDG_RUNTIME_DIR=/run/user-of-test HOME=/run/home
chmod 700 $XDG_RUNTIME_DIR

# The walk of the README, with a clone that is here already.
mkdir -p ~/edge-train/.venv/bin ~/.config/systemd/user/edge-train.service.d
cd ~/edge-train
ln -s "$here/demos" demos
printf '#!/bin/sh\nPYTHONPATH=%s exec %s -m edge_train "$@"\n' "$here" "$python" > .venv/bin/edge-train
chmod +x .venv/bin/edge-train
cp demos/raspberry_pi/edge-train.service ~/.config/systemd/user/
sed s,data/,demos/data/, demos/tpsgd_rows.toml | sed 's/^steps = .*/steps = 500/' > recipe.toml
printf '[Service]\nRestartSec=3\n' > ~/.config/systemd/user/edge-train.service.d/soon.conf
systemd-analyze verify --user ~/.config/systemd/user/edge-train.service

manager=
boot() {
    /lib/systemd/systemd --user --log-target=console > /run/systemd.log 2>&1 &
    manager=$!
    sleep 4
}
of_unit() { systemctl --user show edge-train -p "$1" --value; }
steps() { cat run/journal.jsonl 2> /dev/null | grep -c '"kind":"step"' || true; }
until_steps() { # more than so many are in the journal
    for _ in $(seq 300); do
        [ "$(steps)" -gt "$1" ] && return
        sleep 1
    done
    echo "no step was taken within 300 s" >&2
    exit 1
}
is() { # what is expected of a property
    [ "$(of_unit "$1")" = "$2" ] || { echo "$1 is $(of_unit "$1"), not $2" >&2; exit 1; }
}

boot
systemctl --user enable --now edge-train
until_steps 10
kill -9 "$(of_unit MainPID)"
before=$(steps)
until_steps "$before"
is NRestarts 1
echo "killed at step $before: started again, and gone on"

systemctl --user stop edge-train
is ExecMainStatus 130
is ActiveState inactive
before=$(steps)
sleep 5
[ "$(steps)" = "$before" ]
echo "stopped at step $before: everything saved, and not started again"

systemctl --user start edge-train
until_steps "$before"
kill -9 $manager $(pgrep -f -- '--go-on' | grep -v "^$$\$")
rm -rf ${XDG_RUNTIME_DIR:?}/*
sleep 1
before=$(steps)
boot # nobody starts the unit: it is enabled
until_steps "$before"
echo "power cut at step $before: begun with the manager, and gone on"

for _ in $(seq 300); do
    [ "$(of_unit ActiveState)" = inactive ] && break
    sleep 1
done
is ExecMainStatus 0
is ActiveState inactive
grep -q '"status":"done"' run/journal.jsonl
sleep 5
is NRestarts 0
echo "ended after $(steps) steps: not started again"

sed -i 's/^network = .*/network = "gru x"/' recipe.toml
rm -rf run
systemctl --user start edge-train
sleep 10
is ExecMainStatus 2
is NRestarts 0
echo "a recipe that cannot be used: not started again"
echo "service: all is well"
