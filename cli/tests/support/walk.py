# Prints a line for each file of a tree: everything that a program could see of it.
#
#   walk.py ROOT        what a container gets from its runtime is left out
import hashlib, os, stat, sys

root = os.fsencode(sys.argv[1])
generated = {b"/etc/hostname", b"/etc/hosts", b"/etc/resolv.conf"}
# The runtime mounts over these or makes files in them, so their own times change.
touched = {b"/", b"/etc", b"/proc", b"/sys", b"/dev"}
closed = {b"/proc", b"/sys", b"/dev"}


def walk(path, name):
    entry = os.lstat(path)
    kind = stat.S_IFMT(entry.st_mode)
    line = [os.fsdecode(name), kind, stat.S_IMODE(entry.st_mode), entry.st_uid, entry.st_gid]
    if name in closed:
        line = line[:2]
    if name not in touched:
        line.append(entry.st_mtime_ns)
    if kind == stat.S_IFLNK:
        line.append(os.fsdecode(os.readlink(path)))
    elif kind == stat.S_IFREG:
        with open(path, "rb") as file:
            line += [entry.st_size, entry.st_nlink, hashlib.sha256(file.read()).hexdigest()]
    elif kind in (stat.S_IFCHR, stat.S_IFBLK):
        line.append(entry.st_rdev)
    names = (n for n in os.listxattr(path, follow_symlinks=False) if ".overlay." not in n)
    line.append(sorted((n, os.getxattr(path, n, follow_symlinks=False).hex()) for n in names))
    print(ascii(line))
    if kind == stat.S_IFDIR and name not in closed:
        for child in sorted(os.listdir(path)):
            below = name.rstrip(b"/") + b"/" + child
            if below not in generated and below != b"/walk.py":
                walk(os.path.join(path, child), below)


walk(root, b"/")
