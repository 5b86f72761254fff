"""Folders of photographs: formats that were left out of a build, EXIF's orientation, damaged files, the cache."""
import fcntl
import json
import os
import signal
import struct
import subprocess
import time
import zipfile
import zlib

from harness import VAE, Skip, metrics, path, read_json, test, vae

ALONE = os.path.join(os.path.dirname(VAE), "vae_alone")  # the same, built without WebP, TIFF and MPI
QUICK = ["--hidden", 2, "--latent", 1, "--epochs", 1, "--sample-every", 0, "--report=false", "--device", "cpu",
         "--threads", 1]


def put(name, data):
    os.makedirs(os.path.dirname(path(name)), exist_ok=True)
    with open(path(name), "wb") as file:
        file.write(data)


def png(width, height, rows, orientation=1):
    """A grey PNG file of these bytes, with EXIF that says so."""
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    exif = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01" + struct.pack(">HH", orientation, 0)
    lines = b"".join(b"\0" + bytes(rows[y * width:(y + 1) * width]) for y in range(height))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)) +
            chunk(b"eXIf", exif) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b""))


@test
def formats_left_out_are_named():
    if not os.path.exists(ALONE):
        raise Skip(f"no {ALONE}: make test builds it, for VAE=build/test/vae")
    put("left/a.webp", b"RIFF\x1c\0\0\0WEBPVP8L" + bytes(16))
    put("left/tiff/a.tif", b"II*\0" + bytes(16))
    for file, form, library in (("left/a.webp", "WebP", "libwebp"), ("left/tiff/a.tif", "TIFF", "libtiff")):
        says = f"{file}: is a {form} picture, and this program was built without {library}"
        vae("train", "--data", file, *QUICK, "--out", "none", code=1, says=says, program=ALONE)
        assert says not in vae("train", "--data", file, *QUICK, "--out", "none", code=3).err
        folder = os.path.dirname(file)
        if "tiff" in file:
            vae("train", "--data", folder, *QUICK, "--out", "none", code=1, says=says, program=ALONE)


@test
def orientation_is_kept_with_the_run():
    put("lying/a.png", png(2, 2, [1, 2, 3, 4], 6))
    put("upright/a.png", png(2, 2, [3, 1, 4, 2]))
    put("stored/a.png", png(2, 2, [1, 2, 3, 4]))

    for run, *args in (("turned", "lying"), ("ignored", "lying", "--exif", "ignore"), ("upright-run", "upright"),
                       ("stored-run", "stored")):
        vae("train", *QUICK, "--out", run, "--data", *args)
    ignored = sha("ignored")
    assert sha("turned") == sha("upright-run") and ignored == sha("stored-run") and ignored != sha("turned")
    assert read_json("turned", "config.json")["exif"] == "honour"
    assert read_json("ignored", "config.json")["exif"] == "ignore"
    # a run reads new data as it read its own: rows are the same where the files are
    for run in ("turned", "ignored"):
        said = vae("eval", run, "--json").json()
        assert said == {**vae("eval", run, "--data", "upright" if run == "turned" else "stored", "--json").json(),
                        "data": said["data"]}, said
    vae("train", "--resume", "--out", "ignored", "--epochs", 2, "-q")
    vae("train", "--resume", "--out", "ignored", "--epochs", 3, "--exif", "honour", code=2,
        says="it was trained on other data")
    # a run of a version that had no such option
    config = read_json("ignored", "config.json")
    del config["exif"]
    with open(path("ignored", "config.json"), "w") as file:
        json.dump(config, file)
    vae("train", "--resume", "--out", "ignored", "--epochs", 3, "-q")
    assert sha("ignored") == ignored
    assert read_json("ignored", "config.json")["exif"] == "ignore"
    vae("train", "--data", "digits", *QUICK, "--exif", "ignore", "--out", "none", code=2,
        says="--exif has no effect on digits")


def sha(run):
    return read_json(run, "run.json")["data"]["sha256"]


def many(folder, n, side=4, classes=("cat", "dog")):
    for i in range(n):
        put(f"{folder}/{classes[i * len(classes) // n]}/{i:03d}.png",
            png(side, side, [(i * 37 + k * 11) % 256 for k in range(side * side)]))


@test
def damaged_files_are_left_out():
    many("good", 40)
    many("bad", 40)
    for i in (3, 11, 25):  # what is good is the rest, in order
        os.remove(path(f"good/{'cat' if i < 20 else 'dog'}/{i:03d}.png"))
    with open(path("bad/cat/003.png"), "r+b") as file:
        file.truncate(70)
    put("bad/cat/011.png", b"no picture at all")
    put("bad/dog/025.png", b"")
    train = ["train", "--data", "bad", *QUICK[:-2]]
    vae(*train, "--out", "none", code=3, says="bad/cat/011.png: not a picture")  # headers first
    assert "--skip-bad N leaves up to N such files out" in vae(*train, "--out", "none", code=3).err
    said = vae(*train, "--skip-bad", 2, "--out", "none", code=3).err
    assert "bad/dog/025.png: not a picture" in said and \
        "before it 2 others could not be read, as many as --skip-bad 2 leaves out" in said, said
    vae("train", "--data", "good", *QUICK, "--out", "good-run")
    for threads in (1, 3):
        run = f"bad-run{threads}"
        said = vae(*train, "--threads", threads, "--skip-bad", 3, "--out", run, env={"OMP_NUM_THREADS": str(threads)}).err
        assert sha(run) == sha("good-run"), threads
        left = read_json(run, "run.json")["data"]["left_out"]
        assert [f["file"] for f in left["files"]] == ["bad/cat/003.png", "bad/cat/011.png", "bad/dog/025.png"], left
        assert left["n"] == 3 and left["files"][1]["why"].startswith("not a picture"), left
        with open(path(run, "log.txt")) as file:
            log = file.read()
        for f in left["files"]:
            line = f"{f['file']}: left out: {f['why']}"
            assert line in log and "warning: " + line in said, (line, log, said)
    assert "left_out" not in read_json("good-run", "run.json")["data"]
    # labels are those of the rest
    vae("encode", "bad-run1", "--out", "bad.npz", "-q")
    vae("encode", "good-run", "--out", "good.npz", "-q")
    assert npz_labels("bad.npz") == npz_labels("good.npz") != []
    # what asks with the model later leaves them out, too, and no more than was said
    assert vae("eval", "bad-run1", "--json").json()["n"] == 37
    put("bad/dog/039.png", b"one more")
    vae("eval", "bad-run1", code=3, says="bad/dog/039.png: not a picture")
    for name in os.listdir(path("bad/cat")):
        put(f"none-good/{name}", b"x")
    vae("train", "--data", "none-good", *QUICK, "--skip-bad", 99, "--out", "none", code=3,
        says="none of its pictures can be read: none-good/000.png: not a picture")
    vae("train", "--data", "digits", *QUICK, "--skip-bad", 1, "--out", "none", code=2,
        says="--skip-bad has no effect on digits")


def npz_labels(name):
    with zipfile.ZipFile(path(name)) as file:
        return list(file.read("labels.npy"))


@test
def pictures_are_kept_decoded():
    many("big", 60)
    put("big/dog/bad.png", b"torn")
    options = ["train", "--data", "big", *QUICK, "--image-size", 3, "--skip-bad", 1]

    def run(name, *more, says=None, code=0):
        return vae(*options, "--out", name, "--cache", "big.cache", "--force", *more, says=says, code=code).err

    def stamp():
        info = os.stat(path("big.cache"))
        return info.st_ino, info.st_mtime_ns

    vae(*options, "--out", "plain")
    said = run("made", says="big.cache: 61 pictures of big are decoded into this cache")
    assert sha("made") == sha("plain") and metrics("made") == metrics("plain")
    first = stamp()
    said = run("again")
    assert "decoded" not in said and "big/dog/bad.png: left out: not a picture" in said and stamp() == first, said
    assert metrics("again") == metrics("plain")
    left = [read_json(r, "run.json")["data"]["left_out"] for r in ("plain", "made", "again")]
    assert left[0] == left[1] == left[2], left
    # it is mapped: no decoded picture is read any more
    names = [path("big", c, n) for c in ("cat", "dog") for n in sorted(os.listdir(path("big", c)))]
    times = {n: os.stat(n) for n in names}
    for n in names:
        with open(n, "r+b") as file:
            file.write(bytes(os.path.getsize(n)))
        os.utime(n, ns=(times[n].st_atime_ns, times[n].st_mtime_ns))
    run("mapped")
    assert sha("mapped") == sha("plain")
    assert vae("eval", "mapped", "--json").json()["n"] == 60, "as a run's commands do"
    many("big", 60)
    for n in names:
        os.utime(n, ns=(times[n].st_atime_ns, times[n].st_mtime_ns))
    # too many left out
    vae(*options[:-1], 0, "--out", "few", "--cache", "big.cache", code=3, says="big/dog/bad.png: not a picture")
    # whatever changes the bytes makes it anew: options, a time, a name, a number of files
    run("other", "--image-channels", 3, says="decoded into this cache, anew: it is of --image-channels 1, now 3")
    assert stamp() != first and read_json("other", "config.json")["cache"] == "big.cache"
    run("size", "--image-size", 2, says="anew: it is of --image-size 3 --exif honour")
    run("turned", "--exif", "ignore", says="anew")
    run("limited", "--limit", 7, says="anew")
    run("made", says="anew")
    os.utime(names[0], ns=(1, 1))
    run("made", says="anew: names, sizes or times of files are others")
    os.rename(names[0], names[0].replace("000", "000b"))
    run("made", says="anew: names, sizes or times of files are others")
    os.remove(names[1])
    run("made", says="anew: it is of 61 pictures, now there are 60")
    assert "decoded" not in run("made")
    # what is no cache is not touched, what is damaged neither
    good = open(path("big.cache"), "rb").read()
    for data, says in ((b"a letter", "is there, and is no cache of pictures"), (b"", "is no cache of pictures"),
                       (good[:-1], "damaged cache of pictures"), (good[:500], "damaged cache of pictures (it is cut short)"),
                       (good + b"x", "damaged"), (good[:900], "damaged"),
                       (good[:100] + bytes([good[100] ^ 1]) + good[101:], "big.cache: damaged: the rows in it are not"),
                       (good[:-200] + bytes([good[-200] ^ 1]) + good[-199:], "its SHA-256 is another")):
        put("big.cache", data)
        run("none", says=says, code=3)
        assert open(path("big.cache"), "rb").read() == data, says
    assert not os.path.exists(path("none"))
    # one of another version is ours, and old
    put("big.cache", good[:12] + b"\x63" + good[13:])
    run("made", says="anew: it is of format 99, this program's is 1")
    # a command of a run leaves one that does not fit alone, and reads the pictures
    put("big.cache", good)
    os.utime(names[2], ns=(5, 5))
    assert vae("eval", "made", "--json").json()["n"] == 59
    assert open(path("big.cache"), "rb").read() == good
    os.mkdir(path("folder.cache"))
    vae(*options, "--out", "none", "--cache", "folder.cache", code=3, says="folder.cache: is a folder")
    vae(*options, "--out", "none", "--cache", "no/such/folder", code=4, says="no/such/folder: cannot write")
    vae("train", "--data", "digits", *QUICK, "--cache", "x", "--out", "none", code=2, says="--cache has no effect on digits")


@test
def a_large_cache_is_read_as_it_was_written():
    """Of 18 MB: its checksum is taken in pieces."""
    for i in range(400):
        put(f"large/{i}.ppm", b"P6\n128 128\n255\n" + bytes((i + j) % 251 for j in range(128)) * 384)
    options = ["train", "--data", "large", *QUICK, "--batch-size", 100, "--force", "--cache", "large.cache"]
    vae(*options, "--out", "large-run", says="400 pictures of large are decoded into this cache")
    assert os.path.getsize(path("large.cache")) > 18 << 20
    weights = sha("large-run")
    assert "decoded" not in vae(*options, "--out", "large-run").err and sha("large-run") == weights
    with open(path("large.cache"), "r+b") as file:
        file.seek(17 << 20)
        file.write(b"\xff\0\xff")
    vae(*options, "--out", "none", code=3, says="large.cache: damaged: the rows in it are not")


@test
def a_test_set_has_a_cache_of_its_own():
    for split in ("train", "test"):
        many(f"split/{split}", 10 if split == "train" else 6)
    vae("train", "--data", "split", *QUICK, "--cache", "split.cache", "--out", "split-run", "-q")
    assert {"split.cache", "split.cache.test"} <= set(os.listdir(path()))
    said = vae("train", "--data", "split", *QUICK, "--cache", "split.cache", "--out", "split-run", "--force").err
    assert "decoded" not in said, said
    vae("train", "--data", "split", *QUICK, "--out", "split-plain", "-q")
    assert metrics("split-run") == metrics("split-plain")
    before = [os.stat(path(n)).st_mtime_ns for n in ("split.cache", "split.cache.test")]
    for split, n in (("train", 10), ("test", 6)):
        assert vae("eval", "split-run", "--split", split, "--json").json()["n"] == n
    assert before == [os.stat(path(n)).st_mtime_ns for n in ("split.cache", "split.cache.test")]
    test = open(path("split.cache.test"), "rb").read()
    put("split.cache.test", test[:70] + bytes([test[70] ^ 1]) + test[71:])
    vae("eval", "split-run", code=3, says="vae: split.cache.test: damaged: the rows in it are not")
    vae("eval", "split-run", "--split", "train")


@test
def a_cache_is_of_a_folder():
    put("single.png", png(2, 2, [1, 2, 3, 4]))
    vae("train", "--data", "single.png", *QUICK, "--cache", "single.cache", "--out", "none", code=2,
        says="--cache has no effect on single.png: it needs a folder of picture files")
    many("several", 4)
    said = vae("train", "--data", "several", *QUICK, "--image-size", 2, "--cache", "-", "--out", "none", code=2,
               says="--cache: expected the name of a file, which is kept and mapped, found '-'")
    assert said.out == ""
    vae("train", "--data", "several", "--test-data", "single.png", *QUICK, "--image-size", 2, "--cache", "several.cache",
        "--out", "several-run", "-q")
    assert not os.path.exists(path("several.cache.test"))
    # it is made anew where it was, wherever the run is gone on with from
    os.unlink(path("several.cache"))
    os.makedirs(path("afar"))
    there = ["env", "-C", path("afar")]
    vae("eval", "../several-run", prefix=there)
    vae("train", "--resume", "--out", "../several-run", "--epochs", 2, "-q", prefix=there)
    assert os.path.exists(path("several.cache")) and os.listdir(path("afar")) == []
    # the model goes elsewhere without it
    vae("export", "several-run", "--out", "several.safetensors", "-q")
    vae("import", "several.safetensors", "--out", "several-there", "-q")
    assert read_json("several-there", "config.json")["cache"] == ""
    vae("import", "several.safetensors", "--cache", "mine.cache", "--out", "several-mine", "-q")
    assert read_json("several-mine", "config.json")["cache"] == "mine.cache"


@test
def killed_while_a_cache_is_made():
    """What was there stays; what the killed one left is gone when the next one begins."""
    many("kill", 30, 60)
    options = ["train", "--data", "kill", *QUICK, "--out", "killed", "--cache", "kill.cache"]
    dead = subprocess.Popen(["true"])
    dead.wait()
    left, held, other = f"kill.cache.{dead.pid}-0.tmp", f"kill.cache.{dead.pid}-1.tmp", f"kill.cache.{os.getpid()}-0.tmp"
    for name in (left, held, other, "kill.cache.x-0.tmp"):
        put(name, b"\x89vaecache\r\n\x1a" + bytes(500))
    lock = open(path(held), "r+b")  # as one of another host would, whose number is nobody's here
    fcntl.flock(lock, fcntl.LOCK_EX)
    vae(*options, says=f"{left}: removed: left by one who was killed while making kill.cache")
    assert sorted(n for n in os.listdir(path()) if n.startswith("kill.cache")) == \
        sorted(["kill.cache", held, other, "kill.cache.x-0.tmp"])
    # a disk that is full leaves what was there
    whole = open(path("kill.cache"), "rb").read()
    vae(*options, "--image-size", 50, "--force", code=4, says="kill.cache", prefix=["prlimit", "--fsize=60000"])
    assert open(path("kill.cache"), "rb").read() == whole
    assert len([n for n in os.listdir(path()) if n.startswith("kill.cache")]) == 4


@test
def interrupted_while_a_cache_is_made():
    """Ctrl-C leaves no part of a cache behind, and what was there as it was; it is heard between any two pictures,
    for these are read side by side in one go."""
    picture = png(1200, 1200, bytes(range(160)) * 9000)
    for i in range(200):
        put(f"slow/a/{i}.png", picture)
    process = subprocess.Popen([VAE, "train", "--data", "slow", *map(str, QUICK), "--out", "slowly", "--cache",
                                "slow.cache"],
                               cwd=path(), stderr=subprocess.PIPE)
    deadline = time.time() + 60
    while not [n for n in os.listdir(path()) if n.startswith("slow.cache.")]:
        assert process.poll() is None and time.time() < deadline, process.stderr.read()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    error = process.communicate(timeout=60)[1].decode()
    assert process.returncode == -signal.SIGINT and " after 0 of 200 pictures" in error, error
    assert [n for n in os.listdir(path()) if n.startswith("slow")] == ["slow"]
