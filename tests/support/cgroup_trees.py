"""A fake root with mounts of control groups, for whoever reads them."""

V2 = "cgroup2 /sys/fs/cgroup cgroup2 rw"
V1 = "cgroup /sys/fs/cgroup/memory cgroup rw,memory"
V1_CPU = "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu,cpuacct"
HYBRID_V2 = "cgroup2 /sys/fs/cgroup/unified cgroup2 rw"


def make_root(place, mounts, membership, folders, total_kb=8_000_000):
    """Write a root into `place`; `folders` maps a folder to its files and their texts."""
    (place / "proc/self").mkdir(parents=True)
    (place / "proc/mounts").write_text("".join(f"{m} 0 0\n" for m in mounts))
    (place / "proc/self/cgroup").write_text(membership)
    (place / "proc/meminfo").write_text(f"MemTotal: {total_kb} kB\nMemAvailable: {total_kb} kB\n")
    for folder, files in folders.items():
        (place / folder).mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (place / folder / name).write_text(text)
    return place
